# SPDX-License-Identifier: GPL-3.0-or-later
# Writing goes on with two nodes away, also when they go in mid-work; when they are back they
# are filled in without being asked, and then any other two may go.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume
make_tree "$M/one" 1
ok hf sync v
mv "$W/n/2" "$W/n/6" "$W/"
make_tree "$M/two" 2
ok hf sync v
until_status '.survives == 0 and (.protected | not)'
hf status v --json | jq -e '[.nodes[] | select(.state == "down")] | map(.url) | sort ==
	["dir:'"$W"'/n/2", "dir:'"$W"'/n/6"]' >/dev/null || { hf status v; fail "the lost nodes are not named"; }
hf sync v --protected --timeout 2 2>/dev/null && fail "protected with two nodes away"
tree "$M" >"$W/want"
mv "$W/2" "$W/6" "$W/n/"
until_status '.protected and .survives == 2'
umount_volume
ok hf fsck v --nodes --deep
mv "$W/n/1" "$W/n/4" "$W/"
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
tree "$M" >"$W/got"
diff "$W/want" "$W/got" || fail "the tree differs: the returned nodes were not filled in"
umount_volume

# All nodes away: the mount comes up, local bytes are there, writes are kept, published later.
mv "$W/n" "$W/n.away"
mount_volume
echo offline >"$M/offline"
eq "$(cat "$M/offline")" offline
hf sync v --timeout 1 2>/dev/null && fail "published without nodes"
ok hf umount "$M" --now
mount_volume
eq "$(cat "$M/offline")" offline
mv "$W/n.away" "$W/n"
mv "$W/1" "$W/4" "$W/n/"
until_status '.unpublished.files == 0 and .protected'
