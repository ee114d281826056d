# SPDX-License-Identifier: GPL-3.0-or-later
# The way of a user: create, mount, work, umount, mount again; status and sync tell the truth.
. "$(dirname "$0")/lib.sh"
new_volume
grep -q "kit" "$W/create.out" || fail "create does not say where the kit is"
[ "$(stat -c %a "$W/kit.txt")" = 600 ] || fail "the kit is readable by others"
[ "$(stat -c %a "$HOLDFAST_HOME/v")" = 700 ] || fail "the state is readable by others"
mount_volume
mountpoint -q "$M" || fail "mount returned but nothing is mounted"
make_tree "$M/t"
tree "$M/t" >"$W/before"
ok hf sync v
ok hf status v --json >"$W/status"
ok jq -e '.mounted and .unpublished.bytes == 0 and .unpublished.files == 0 and (.nodes | length) == 6
	and .survives == 2 and .published.seq >= 1 and .volume == "v" and .protected
	and all(.nodes[]; .state == "up" and (.url | startswith("dir:")))' "$W/status"
eq "$(jq -r .mountpoint "$W/status")" "$M"
hf status v | grep -i "surviv" >/dev/null || fail "the status for people does not say what the drive survives"
no 1 hf mount v "$W/m"
mkdir "$W/m2"
no 1 hf mount v "$W/m2"
says mounted
tree "$M/t" >"$W/after"
ok cmp "$W/before" "$W/after"
umount_volume
mountpoint -q "$M" && fail "still mounted"
hf status v --json | jq -e '.mounted == false' >/dev/null || fail "status of an unmounted volume"
mount_volume
tree "$M/t" >"$W/after"
diff "$W/before" "$W/after" || fail "the tree changed over umount and mount"
echo more >"$M/more"
hf umount "$M" --now || fail "umount --now"
mount_volume
eq "$(cat "$M/more")" more
ok hf sync v --protected
umount_volume
ok hf fsck v --nodes --deep
