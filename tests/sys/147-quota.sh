# SPDX-License-Identifier: GPL-3.0-or-later
# A drive that may hold so much and no more: writes beyond get EDQUOT, df shows it, what adds
# nothing goes on, and a recovered drive has the same limit.
. "$(dirname "$0")/lib.sh"
MB=1048576
new_volume --quota 20M
mount_volume -o interval=1
used() { df -B1 --output=used "$M" | tail -n 1 | tr -d ' '; }
# What the files hold, in whole blocks as df has it.
held() { find "$M" -type f -printf '%s\n' | awk '{ n += $1 } END { print int((n + 4095) / 4096) * 4096 }'; }
size() { df -B1 --output=size "$M" | tail -n 1 | tr -d ' '; }
# over CMD...: must fail, and say why.
over() {
	"$@" 2>"$W/err" && fail "beyond the quota: $*"
	grep -q 'quota exceeded' "$W/err" || { cat "$W/err"; fail "not for the quota: $*"; }
}
# A deleted file goes when the kernel says that nobody has it open, which is soon.
until_used() {
	for _ in $(seq 600); do [ "$(used)" = "$1" ] && return; sleep 0.1; done
	eq "$(used)" "$1"
}
fill() { head -c "$2" /dev/urandom >"$M/$1"; }
write_at() { # FILE OFFSET LENGTH
	head -c "$3" /dev/urandom | dd of="$M/$1" bs=64K conv=notrunc iflag=fullblock oflag=seek_bytes seek="$2" status=none
}
eq "$(size)" $((20 * MB))
ok fill ten $((10 * MB))
ok hf sync v
eq "$(used)" $((10 * MB))
over dd if=/dev/zero of="$M/much" bs=1M count=15
[ "$(stat -c %s "$M/much")" -le $((10 * MB)) ] || fail "more than fits was taken"
[ "$(stat -c %s "$M/much")" -ge $((9 * MB)) ] || fail "less than fits was taken"
over sh -c "head -c 100000 /dev/zero | cat >>'$M/ten'"

echo "at the limit: what adds nothing goes on, what frees too"
ok write_at ten 0 $((10 * MB))
ok write_at ten $((3 * MB)) 100
over fallocate -l $((30 * MB)) "$M/pre"
rm -f "$M/pre"
ok truncate -s 1G "$M/hole"
touch "$M/empty"
mkdir "$M/dir"
ok mv "$M/much" "$M/dir/much"
ok truncate -s $((2 * MB)) "$M/dir/much"
ok hf sync v
eq "$(used)" $((12 * MB))
over write_at hole $((500 * MB)) $((9 * MB))
rm "$M/hole"

echo "copies count, small files count"
ok hf sync v
until_used $((12 * MB))
ok cp "$M/dir/much" "$M/copy"
ok hf sync v
eq "$(used)" $((14 * MB))
over cp "$M/ten" "$M/ten2"
rm "$M/ten2"
until_used $((14 * MB))
for i in $(seq 200); do echo "small $i" >"$M/dir/s$i" || fail "a small file"; done
ok hf sync v
eq "$(used)" "$(held)"
eq "$(getfattr -d -m - "$M" 2>/dev/null | grep -c holdfast)" 0
setfattr -n holdfast.quota -v x "$M" 2>/dev/null && fail "a program set it"
kill_volume

echo "it outlives a crash, a mount, and the machine"
mount_volume -o interval=1
eq "$(size)" $((20 * MB))
eq "$(used)" "$(held)"
over fill more $((9 * MB))
rm "$M/more"
umount_volume
mount_volume -o interval=1,quota=30M
eq "$(size)" $((30 * MB))
ok fill more $((9 * MB))
ok hf sync v
umount_volume
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume -o interval=1
eq "$(size)" $((30 * MB))
eq "$(used)" "$(held)"
over fill even $((9 * MB))
rm "$M/even"
umount_volume

echo "without one the same is taken"
mount_volume -o interval=1,quota=none
[ "$(size)" -gt $((100 * MB)) ] || fail "df still shows a quota"
ok fill even $((9 * MB))
umount_volume
mount_volume
ok fill even $((12 * MB))
ok hf sync v
umount_volume
ok hf fsck v --nodes
no 2 hf mount v "$M" -o quota=x
no 2 hf mount v "$M" -o quota=0
no 2 hf create w --quota much
