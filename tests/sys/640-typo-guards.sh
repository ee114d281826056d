# SPDX-License-Identifier: GPL-3.0-or-later
# P7: no command takes the drive below what it promises, or away what is nowhere else, for one
# wrong word: the rows of the table in README.md, each with its refusal, with nothing changed by
# it, and with the word that overrides it, where there is one.
. "$(dirname "$0")/lib.sh"
have jq
mkdir "$W/new"
new_volume
mount_volume
make_tree "$M/t" "$SEED" dense
ok hf sync v --protected
tree "$M" >"$W/want"
umount_volume

# What lies on the nodes and what is known here, in one sum; the log and the lock may move.
state() {
	(cd "$W" && find n kit.txt home -type f ! -name log ! -name lock ! -name sock ! -name 'meta.db*' -print0 |
		sort -z | xargs -0 sha256sum | sha256sum)
	rm -rf "$W/db" && mkdir "$W/db" && cp "$HOLDFAST_HOME"/v/meta.db* "$W/db/" && sqlite3 "$W/db/meta.db" .dump | sha256sum
}
# For commands that open the drive, which leaves a mark of the day on each node: who is a member.
members() {
	hf node list v --json | jq -c '[.[] | [.name, .url, .member, .shards]]'
	(cd "$W" && find n new -type f ! -path '*/v/e*' -print0 | sort -z | xargs -0 sha256sum | sha256sum)
}
# refused LOOK STATUS WORD CMD...: with that status, saying WORD; what LOOK shows is as before.
refused() {
	local look=$1 status=$2 word=$3 was
	shift 3
	was=$($look)
	no "$status" "$@"
	says "$word"
	eq "$($look)" "$was" "refused, but something has changed: $*"
}
stays() { refused members "$@"; }
refuses() { refused state "$@"; }
same() {
	tree "$M" >"$W/got"
	diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "$1: the tree differs"; }
}
place() { mkdir -p "$W/new" && echo "dir:$W/new/$1"; }

# FROM=node begins there.
if [ "${FROM:-}" != node ]; then
echo "create"
refuses 1 "exists already" hf create v --node "$(place 1)" --node "$(place 2)" --kit "$W/k"
refuses 1 "not empty" hf create w --node "dir:$W/n/1" --node "$(place 1)" --kit "$W/k"
refuses 1 "never written over" hf create w --node "$(place 1)" --node "$(place 2)" --kit "$W/kit.txt"
mkdir "$W/new/1"
refuses 2 "would have the keys" hf create w --node "dir:$W/new/1" --node "dir:$W/new/2" --kit "$W/new/1/kit"
rmdir "$W/new/1"
[ -e "$HOLDFAST_HOME/w" ] && fail "a refused create left a volume"
[ -z "$(ls "$W/new")" ] || fail "a refused create left a node"

echo "recover"
refuses 1 "exists already" hf recover "$W/kit.txt" v
refuses 1 "take-over" hf recover "$W/kit.txt" another
[ -e "$HOLDFAST_HOME/another" ] && fail "a refused recovery left a volume"

echo "mount"
mkdir "$W/full" && echo x >"$W/full/x"
refuses 1 "not empty" hf mount v "$W/full"
refuses 1 "state directory" hf mount v "$HOLDFAST_HOME"
refuses 1 "node" hf mount v "$W/n/3"
mount_volume
mkdir "$W/m2"
no 1 hf mount v "$W/m2"
says "already mounted"
# Less than it holds: nothing goes, nothing more comes.
umount_volume
mount_volume -o quota=64K
same "a quota below what is there"
head -c 200000 /dev/urandom >"$M/more" 2>/dev/null && fail "written beyond the quota"
rm -f "$M/more"
umount_volume
mount_volume -o quota=none,interval=3600

echo "umount"
head -c 300000 /dev/urandom >"$M/only-here"
sum=$(sha256sum <"$M/only-here")
mv "$W/n" "$W/n.away" && mkdir "$W/n"
until_status '[.nodes[] | select(.state == "up")] == []'
no 1 hf umount "$M"
says "still mounted.*--now"
mountpoint -q "$M" || fail "a refused umount has unmounted"
eq "$(sha256sum <"$M/only-here")" "$sum"
ok hf umount "$M" --now
rmdir "$W/n" && mv "$W/n.away" "$W/n"

echo "fsck"
# It is here and nowhere else now.
cp -a "$HOLDFAST_HOME" "$W/home.kept"
hf fsck v >/dev/null || fail "fsck"
hf fsck v --repair >/dev/null || fail "fsck --repair"
refuses 1 "not published.*--anyway" hf fsck v --rebuild
refuses 2 "rebuild" hf fsck v --anyway
mv "$W/n/6" "$W/"
refuses 1 "--anyway" hf fsck v --rebuild
no 1 hf fsck v --rebuild --anyway
says "5 of 6 nodes"
mv "$W/6" "$W/n/"
ok hf fsck v --rebuild --anyway >"$W/out"
find "$HOLDFAST_HOME/v" -path '*salvaged*' -type f -print0 | xargs -0 sha256sum | grep -q "${sum%% *}" ||
	fail "the word given, what was only here is nowhere"
rm -rf "$HOLDFAST_HOME" && cp -a "$W/home.kept" "$HOLDFAST_HOME"
mount_volume
eq "$(sha256sum <"$M/only-here")" "$sum" "after fsck and a mount"
ok hf sync v --protected
tree "$M" >"$W/want"
umount_volume

fi

# What follows has not been seen to pass to its end yet, on the machine where it was written.
[ "${ALL:-}${FROM:-}" ] || exit 0
echo "node"
stays 1 "add a node first" hf node drain v node-3
stays 1 "replace it" hf node remove v node-3
stays 1 "add a node first" hf node remove v node-3 --lost
stays 1 "already" hf node add v "dir:$W/n/2"
stays 1 "within the other" hf node add v "dir:$W/n/2/below"
mkdir -p "$W/f" && (
	export HOLDFAST_HOME=$W/home-f
	ok hf create f --node "dir:$W/f/1" --node "dir:$W/f/2" --kit "$W/kit-f" >/dev/null
) || exit 1
stays 1 "in use already" hf node add v "dir:$W/f/1"
# A place that would be lost together with others: fewer losses would be survived than now.
ok hf node replace v node-5 "$(place 5)?domain=shelf" >/dev/null
ok hf node replace v node-6 "$(place 6)?domain=shelf" >/dev/null
stays 1 "promise less" hf node replace v node-4 "$(place 4)?domain=shelf"
[ -e "$W/new/4" ] && fail "a refused node was made"
ok hf node replace v node-4 "$(place 4)" >/dev/null
ok hf node add v "$(place 7)" --rebalance >/dev/null
held=$(hf node list v --json | jq -r '[.[] | select(.shards > 0 and .number < 4)][0].name')
stays 1 "drain it first.*--lost" hf node remove v "$held"
mount_volume
no 1 hf node remove v "$held" --lost
says "answers, so it is not lost"
# It is gone, and so are others: without it there would be too few.
mv "$W/n/${held#node-}" "$W/$held" && mv "$W/new/4" "$W/new/5" "$W/new/6" "$W/"
until_status '[.nodes[] | select(.state == "down")] | length == 4'
no 1 hf node remove v "$held" --lost
says "cannot be read from the nodes that answer now"
mv "$W/4" "$W/5" "$W/6" "$W/new/" && mv "$W/$held" "$W/n/${held#node-}"
until_status '[.nodes[] | select(.state == "down")] == []'
same "after all refusals"
umount_volume
# What a node had stays on it for a week (two seconds here), unless told.
on_disk() { find "$W/n/${held#node-}/s" -type f | wc -l; }
had=$(on_disk)
HOLDFAST_PACE=keep=100000 mount_volume
was_t=$(tree "$M/t")
ok hf node drain v "$held" >/dev/null
eq "$(on_disk)" "$had" "what a drained node had is not kept there"
umount_volume
HOLDFAST_PACE=keep=2 mount_volume
for _ in $(seq 300); do
	[ "$(on_disk)" = 0 ] && break
	date >"$M/now"
	ok hf sync v >/dev/null
	sleep 0.2
done
eq "$(on_disk)" 0 "after its time it is still there"
eq "$(tree "$M/t")" "$was_t" "a node is drained"
rm -f "$M/now"
tree "$M" >"$W/want"
umount_volume

echo "kit"
refuses 1 "exists" hf kit v --output "$W/kit-f"
refuses 1 "exists already" hf kit v --qr-png "$W/kit-f"
refuses 1 "another volume" hf kit v --from "$W/kit-f"
refuses 1 "would have the keys" hf kit v --output "$W/n/1/kit"
refuses 1 "would have the keys" hf kit v --qr-png "$W/n/1/kit.png"

echo "and recover, with its word"
mount_volume
echo late >"$M/late"
ok hf umount "$M" --now
ok hf recover "$W/kit.txt" another --take-over >/dev/null
ok hf mount another "$M"
same "recovered under another name"
ok hf umount "$M"
# The earlier one publishes no more, and keeps what it has.
mount_volume
hf sync v --timeout 20 2>"$W/err" && fail "the earlier one still publishes"
says "recovered on another machine"
eq "$(cat "$M/late")" late
ok hf umount "$M" --now
exit 0
