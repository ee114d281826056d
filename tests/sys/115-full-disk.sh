# SPDX-License-Identifier: GPL-3.0-or-later
# The disk of the state directory gets full: programs are told so, what was taken is there, can
# be read, removed and published, and the drive goes on.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip "only root can mount a small disk"
mkdir "$HOLDFAST_HOME"
mount -t tmpfs -o size=64m none "$HOLDFAST_HOME" || skip "no tmpfs can be mounted"
new_volume
mount_volume -o interval=3600
refused=0
n=0
# Programs that go on after an error, with files of all sizes.
while [ $refused -lt 60 ] && [ $n -lt 5000 ]; do
	n=$((n + 1))
	case $((RANDOM % 3)) in
	0) size=$((RANDOM % 4000)) ;;
	1) size=$((RANDOM * 2)) ;;
	2) size=$((70000 + RANDOM * 20)) ;;
	esac
	if { head -c $size /dev/urandom >"$M/f$n"; } 2>/dev/null; then
		(cd "$M" && sha256sum "f$n") >>"$W/sums"
	else
		refused=$((refused + 1))
	fi
	# Overwriting what is there already.
	[ $((n % 50)) -ne 0 ] || sync -f "$M" || fail "syncfs on a full disk"
done
[ $refused -gt 0 ] || fail "$n files and no end of a small disk"
echo "$n files, $refused refused, $(df -k --output=avail "$HOLDFAST_HOME" | tail -1) KiB left"
eq "$(hf status v --json | jq -r '.warning // empty' | grep -c 'no more changes')" 0 "failed"
(cd "$M" && sha256sum --quiet -c "$W/sums") || fail "what was taken is not there"
# Everything that was taken can be published, though the disk is full.
ok timeout 120 "$HOLDFAST" sync v
(cd "$M" && sha256sum --quiet -c "$W/sums") || fail "after publishing"
# Removing needs no room and makes some.
rm -f "$M"/f*[02468]
sed -i '/f[0-9]*[02468]$/d' "$W/sums"
sync -f "$M" || fail "syncfs"
for i in $(seq 600); do
	{ head -c 50000 /dev/urandom >"$M/again"; } 2>/dev/null && break
	sleep 0.2
done
[ "$(stat -c %s "$M/again")" = 50000 ] || fail "nothing can be written after half was removed"
(cd "$M" && sha256sum again) >>"$W/sums"
ok timeout 120 "$HOLDFAST" sync v
umount_volume
ok hf fsck v --nodes
mount_volume
(cd "$M" && sha256sum --quiet -c "$W/sums") || fail "after mounting again"
umount_volume
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
(cd "$M" && sha256sum --quiet -c "$W/sums") || fail "after recovery"
umount_volume
