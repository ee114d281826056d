# SPDX-License-Identifier: GPL-3.0-or-later
# Nodes come and go while the drive is in use: add with existing data spread onto it, drain,
# remove, replace of one that answers and of one that is dead; what is refused, and why.
. "$(dirname "$0")/lib.sh"
new_volume
member() { hf node list v --json | jq -r ".[] | select(.name == \"node-$1\") | .member"; }
shards() { find "$W/n/$1/s" -type f 2>/dev/null | wc -l; }
# A workload that goes on, and whose end is compared.
busy() {
	local i=0
	while [ -e "$W/busy" ]; do
		i=$((i + 1))
		head -c $((RANDOM % 90000 + 1)) /dev/urandom >"$M/busy-$((i % 40))"
		sleep 0.05
	done
}
# Not mounted: refusals, each with what to do.
no 1 hf node drain v node-3
says "add a node first"
no 1 hf node remove v node-3
says "replace it"
no 1 hf node drain v node-9
says "no node of this volume"
no 2 hf node add v nonsense:/x
no 2 hf node frob v
no 1 hf node add v "dir:$W/n/2"
says "already"

mount_volume
make_tree "$M/t" "$SEED"
# Each sync stores a segment (less would go into the log), and one in seven passes a node over: of
# a dozen each gets some.
for i in $(seq 12); do
	head -c 100000 /dev/urandom >"$M/t/segment-$i"
	ok hf sync v
done
tree "$M" >"$W/want"
ok hf sync v --protected
touch "$W/busy"
busy &
work=$!
ok hf node add v "dir:$W/n/7" --rebalance
eq "$(member 7)" member
[ "$(shards 7)" -gt 0 ] || fail "nothing was spread onto the new node"
ok hf node add v "dir:$W/n/8"
# Few segments need not have a shard on every node.
held=$(hf node list v --json | jq -r '[.[] | select(.shards > 0)][0].name')
no 1 hf node remove v "$held"
says "drain it first"
no 1 hf node remove v node-2 --lost
says "answers"
ok hf node drain v 2
eq "$(member 2)" drained
[ "$(shards 2)" -gt 0 ] || fail "what a drained node had is not kept there"
ok hf node remove v node-2 --wipe
eq "$(shards 2)" 0 "told to wipe, shards are left on the node"
eq "$(member 2)" ""
mv "$W/n/2" "$W/"
ok hf node replace v "dir:$W/n/3" "dir:$W/n/9"
eq "$(member 3)" ""
[ "$(shards 3)" -gt 0 ] || fail "what a replaced node had is not kept there"
mv "$W/n/3" "$W/"
# Dead ones.
mv "$W/n/4" "$W/"
until_status '[.nodes[] | select(.name == "node-4") | .state] == ["down"]'
ok hf node replace v node-4 "dir:$W/n/10"
mv "$W/n/5" "$W/"
until_status '[.nodes[] | select(.name == "node-5") | .state] == ["down"]'
ok hf node remove v node-5 --lost
mv "$W/n/6" "$W/"
until_status '[.nodes[] | select(.name == "node-6") | .state] == ["down"]'
no 1 hf node remove v node-6 --lost
says "add a node first"
ok hf node replace v node-6 "dir:$W/n/11"
rm "$W/busy"
wait $work
ok hf sync v --protected
until_status '.protected and .survives == 2'
umount_volume
ok hf fsck v --nodes --deep
# One of the first six is left; the kit knows no other.
rm -rf "$W/n/2" "$W/n/3" "$W/n/4" "$W/n/5" "$W/n/6"
mount_volume
ok hf umount "$M"
mount_volume
tree "$M" >"$W/all"
ok hf umount "$M"
cd "$W/n" || exit 1
for a in *; do
	for b in *; do
		[ "$a" = 1 ] || [ "$b" = 1 ] || [ "$a" -ge "$b" ] && continue
		mv "$W/n/$a" "$W/n/$b" "$W/"
		export HOLDFAST_HOME=$W/home-$a-$b
		ok hf recover "$W/kit.txt" v >"$W/recover.out" 2>&1
		mount_volume
		tree "$M" >"$W/got"
		diff "$W/all" "$W/got" >"$W/diff" || { head "$W/diff"; fail "without nodes $a and $b the tree differs"; }
		ok hf umount "$M" --now
		rm -rf "$HOLDFAST_HOME"
		mv "$W/$a" "$W/$b" "$W/n/"
	done
done

# A replacing that is in the middle when another machine recovers the drive: it says so, the node
# goes on being drained, and is removed when that is asked for.
export HOLDFAST_HOME=$W/home-middle
ok hf recover "$W/kit.txt" v >"$W/recover.out" 2>&1
grep -q drained "$W/recover.out" && fail "a node is said to be drained: $(cat "$W/recover.out")"
mount_volume -o repair_limit=1K
for i in 1 2 3; do
	head -c 1000000 /dev/urandom >"$M/more-$i"
	ok hf sync v --protected
done
ok hf node replace v node-7 "dir:$W/n/12" --no-wait >/dev/null
until_status '[.nodes[] | select(.name == "node-7") | .member] == ["draining"]'
ok hf sync v
tree "$M" >"$W/all"
ok hf umount "$M" --now
export HOLDFAST_HOME=$W/home-after
ok hf recover "$W/kit.txt" v >"$W/recover.out" 2>&1
grep -q "^node-7 is being drained" "$W/recover.out" || { cat "$W/recover.out"; fail "not said"; }
mount_volume
until_status '[.nodes[] | select(.name == "node-7") | .member] == ["drained"]' 300
ok hf node remove v node-7 2>/dev/null >&2
eq "$(member 7)" ""
ok hf sync v --protected
tree "$M" >"$W/got"
diff "$W/all" "$W/got" >"$W/diff" || { head "$W/diff"; fail "the tree differs"; }
umount_volume
ok hf fsck v --nodes --deep
exit 0
