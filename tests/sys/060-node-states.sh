# SPDX-License-Identifier: GPL-3.0-or-later
# A full disk, a read-only one, an unmounted one, a foreign one: a state of that node, not of
# the drive; nothing is ever written below the mount point of a disk that is not there.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip "needs root to mount small disks"
mkdir -p "$W/n/1" "$W/n/2" "$W/n/3"
ok mount -t tmpfs -o size=12m tmpfs "$W/n/1"
ok mount -t tmpfs -o size=200m tmpfs "$W/n/2"
ok mount -t tmpfs -o size=200m tmpfs "$W/n/3"
new_volume
mount_volume
make_tree "$M/one" 1
ok hf sync v
# 60 MB do not fit on node 1.
head -c 60000000 /dev/urandom >"$M/large"
ok hf sync v
until_status '[.nodes[] | select(.state == "full" and (.error // "") != "") | .url] == ["dir:'"$W"'/n/1"]'
tree "$M" >"$W/want"
# The full disk grows: repaired by itself.
ok mount -o remount,size=200m "$W/n/1"
until_status '.protected'
# Node 2 becomes read-only.
# Not while something is being written there.
for i in $(seq 600); do
	mount -o remount,ro "$W/n/2" 2>"$W/err" && break
	[ "$i" -lt 600 ] || { cat "$W/err"; fail "node 2 cannot be made read-only"; }
	sleep 0.1
done
make_tree "$M/two" 2
ok hf sync v
until_status '[.nodes[] | select(.state == "refusing") | .url] == ["dir:'"$W"'/n/2"]'
ok mount -o remount,rw "$W/n/2"
until_status '.protected'
# Node 3's disk is unmounted: its empty mount point is not taken for the node.
ok umount -l "$W/n/3"
make_tree "$M/three" 3
ok hf sync v
until_status '[.nodes[] | select(.state == "wrong" or .state == "down") | .url] == ["dir:'"$W"'/n/3"]'
[ -z "$(find "$W/n/3" -type f)" ] || fail "wrote below an empty mount point"
# Another volume's node in its place.
mkdir "$W/f"
ok hf create f --node "dir:$W/f/1" --node "dir:$W/f/2" --node "dir:$W/f/3" --kit "$W/kit-f" >/dev/null
ok mount --bind "$W/f/1" "$W/n/3"
echo x >"$M/x"
ok hf sync v
until_status '[.nodes[] | select(.state == "wrong") | .url] == ["dir:'"$W"'/n/3"]'
umount_volume
ok umount "$W/n/3"
ok hf fsck v
