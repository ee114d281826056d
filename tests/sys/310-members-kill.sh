# SPDX-License-Identifier: GPL-3.0-or-later
# kill -9 at random instants while nodes come and go under a writer: what was begun goes on by
# itself after the next mount and comes to its end, nothing is lost, and the first kit opens it.
. "$(dirname "$0")/lib.sh"
have jq
ROUNDS=${ROUNDS:-1}
new_volume
# As the drive knows them: what was being uploaded at a kill may be left on a node besides.
shards() { hf node list v --json | jq "[.[] | select(.name == \"node-$1\") | .shards] | add // 0"; }
# It writes below a folder of the drive, so that it writes nothing while nothing is mounted.
busy() {
	local i=0
	while [ -e "$W/busy" ]; do
		i=$((i + 1))
		head -c $((RANDOM % 60000 + 1)) /dev/urandom 2>/dev/null >"$M/busy/$((i % 30))"
		sleep 0.05
	done 2>/dev/null
}
same() {
	tree "$M/t" >"$W/got"
	diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "$1: the tree differs"; }
}
# killed NODE ARGS...: begins a change, and kills twice, early and wherever it then is.
killed() {
	local n=$1 ms
	shift
	ok hf node "$@" --no-wait >/dev/null
	for ms in $((RANDOM % 80)) $((RANDOM % 600)); do
		sleep "$(printf 0.%03d $ms)"
		kill_volume
		echo "$1 node-$n: killed after $ms ms, $(shards "$n") shards are on it"
		mount_volume -o interval=1
	done
	same "$*"
}
gone() { until_status "[.nodes[] | select(.name == \"node-$1\")] == []"; }

mount_volume -o interval=1
make_tree "$M/t" "$SEED"
mkdir "$M/t/more" "$M/busy"
# Many segments, each a commit's.
for i in $(seq 30); do
	head -c $((RANDOM * 10 + 1)) /dev/urandom >"$M/t/more/$i" || fail "writing"
	ok hf sync v >/dev/null
done
tree "$M/t" >"$W/want"
ok hf sync v --protected >/dev/null
touch "$W/busy"
busy &
work=$!
old=2 new=7
for round in $(seq "$ROUNDS"); do
	# The new one gets what is about its share.
	killed $new add v "dir:$W/n/$new" --rebalance
	until_status "([.nodes[].shards] | add / length) as \$mean |
		[.nodes[] | select(.name == \"node-$new\") | .member == \"member\" and .shards * 2 > \$mean] == [true]"
	killed $old drain v node-$old
	until_status "[.nodes[] | select(.name == \"node-$old\") | .member] == [\"drained\"]"
	# Old copies are on it until a commit has named the new ones: the command waits for that.
	ok hf node drain v node-$old >/dev/null
	killed $old remove v node-$old
	gone $old
	killed $((old + 1)) replace v node-$((old + 1)) "dir:$W/n/$((new + 1))"
	gone $((old + 1))
	mv "$W/n/$old" "$W/n/$((old + 1))" "$W/"
	old=$((old + 2)) new=$((new + 2))
done
rm "$W/busy"
wait $work
ok hf sync v --protected >/dev/null
until_status '.protected and .survives == 2'
tree "$M" >"$W/all"
umount_volume
ok hf fsck v --nodes --deep
mount_volume
same "mounted again"
umount_volume
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >"$W/recover.out" 2>&1
mount_volume
tree "$M" >"$W/got"
diff "$W/all" "$W/got" >"$W/diff" || { head "$W/diff"; fail "recovered, the tree differs"; }
umount_volume
