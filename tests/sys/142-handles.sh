# SPDX-License-Identifier: GPL-3.0-or-later
# File handles, as a server of NFS gives them to its clients: the same after remounts, renames,
# with nothing in memory, and on another machine after a recovery; what was deleted is ESTALE,
# also when other files have been made since.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip "only root may open by handle"
new_volume
mount_volume
mkdir -p "$M/d/deep/er" "$M/gone-dir"
echo file >"$M/d/deep/er/f"
head -c 300000 /dev/urandom >"$M/large"
ln -s target "$M/link"
mkfifo "$M/fifo"
echo x >"$M/gone"
paths=("$M" "$M/d" "$M/d/deep/er" "$M/d/deep/er/f" "$M/large" "$M/link" "$M/fifo")
stat -c '%i %s' "${paths[@]}" >"$W/want"
ok "$TOOLS/handles" save "$W/handles" "${paths[@]}" "$M/gone" "$M/gone-dir"
# The sizes of directories may change; all else is as it was.
same() { # what errors
	"$TOOLS/handles" show "$M" "$W/handles" >"$W/got" || fail "$1: no handle could be opened"
	head -n 7 "$W/got" | diff "$W/want" - || fail "$1"
	eq "$(tail -n +8 "$W/got" | tr '\n' ' ')" "$2" "$1"
}
echo 2 >/proc/sys/vm/drop_caches
ok rmdir "$M/gone-dir"
ok rm "$M/gone"
same "nothing in memory" "ESTALE ESTALE "
for i in $(seq 300); do echo "$i" >"$M/new$i"; done
mv "$M/d/deep/er/f" "$M/d/f2"
mv "$M/d/deep" "$M/elsewhere"
umount_volume
mount_volume
same "after a mount" "ESTALE ESTALE "
kill_volume
mount_volume
same "after kill -9" "ESTALE ESTALE "
ok hf sync v
umount_volume
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
for i in $(seq 300); do echo "$i" >"$M/newer$i"; done
same "after a recovery" "ESTALE ESTALE "
# A handle of a deep directory is enough to find its way up.
eq "$(cd "$M/elsewhere/er" && pwd -P)" "$M/elsewhere/er"
umount_volume
