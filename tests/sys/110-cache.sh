# SPDX-License-Identifier: GPL-3.0-or-later
# The cache keeps to its limit, gives up only what is published, and reads it back; what is
# not published stays whatever the limit says.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume -o cache_size=64M,interval=3600
local_bytes() { du -s --block-size=1 "$HOLDFAST_HOME/v/data" | cut -f1; }
for i in 1 2 3 4 5 6; do head -c 40000000 /dev/urandom >"$M/f$i"; done
mkdir "$M/small"
ok "$TOOLS/ops" create "$M/small" 2000 >/dev/null
sums=$(cd "$M" && sha256sum f? small/* | sha256sum)
[ "$(local_bytes)" -ge 240000000 ] || fail "unpublished bytes were given up"
ok hf sync v
for i in $(seq 600); do
	[ "$(local_bytes)" -le $((80 << 20)) ] && break
	sleep 0.2
done
[ "$(local_bytes)" -le $((80 << 20)) ] || fail "$(local_bytes) bytes kept with a limit of 64 MiB"
eq "$(cd "$M" && sha256sum f? small/* | sha256sum)" "$sums"
umount_volume
mount_volume -o cache_size=64M
eq "$(cd "$M" && sha256sum f? small/* | sha256sum)" "$sums"
# Overwrite parts of what is not here.
for i in 1 3 5; do
	echo "patch $i" | dd of="$M/f$i" conv=notrunc bs=1 seek=$((i * 5000000 + 77)) status=none
	truncate -s $((39000000 + i)) "$M/f$i"
done
sums=$(cd "$M" && sha256sum f? | sha256sum)
ok hf sync v
umount_volume
ok hf fsck v --nodes
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume -o cache_size=64M
eq "$(cd "$M" && sha256sum f? | sha256sum)" "$sums"
