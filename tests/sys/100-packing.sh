# SPDX-License-Identifier: GPL-3.0-or-later
# Twenty thousand small files are a few segments, little data stays little, nothing leaves the
# machine for what was made and deleted between two cuts, and copies share what is stored.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume -o interval=3600
shards() { find "$W/n" -path '*/s/*' -type f | wc -l; }
# Not the marks that a mount leaves on its nodes, in its own time.
blobs() { find "$W/n" -type f ! -path '*/v/e*' | wc -l; }
stored() { du -sb --apparent-size "$W/n" | cut -f1; }
ok hf sync v
b0=$(blobs)
mkdir "$M/tmp"
ok "$TOOLS/ops" create "$M/tmp" 3000 >/dev/null
head -c 30000000 /dev/zero >"$M/tmp/large"
rm -rf "$M/tmp"
ok hf sync v
b1=$(blobs)
s1=$(shards)
eq "$s1" 0 "shards were stored for files that are gone"
[ $((b1 - b0)) -le 6 ] || fail "$((b1 - b0)) objects for nothing"
mkdir "$M/small-files"
ok "$TOOLS/ops" create "$M/small-files" 20000 >/dev/null
ok hf sync v
# 80 MB of contents: 5 segments of 16 MiB and records; not 20,000 objects.
n=$(($(shards) / 6))
echo "$n segments for 20,000 files"
[ "$n" -ge 5 ] && [ "$n" -le 10 ] || fail "$n segments"
x=$(stored)
[ "$x" -lt $((82000000 * 3 / 2 * 12 / 10)) ] || fail "$x bytes stored for 80 MB"
# A little data costs little: 20 saves of 3 KB.
x0=$(stored)
for _ in $(seq 20); do
	head -c 3000 /dev/urandom >"$M/note"
	ok hf sync v
done
x1=$(stored)
echo "$(((x1 - x0) / 20)) bytes stored for a save of 3 KB"
[ $(((x1 - x0) / 20)) -lt 60000 ] || fail "a save of 3 KB costs $(((x1 - x0) / 20)) bytes"
# A copy made by copy_file_range shares extents.
head -c 40000000 /dev/urandom >"$M/a"
ok hf sync v
x0=$(stored)
ok "$TOOLS/copyrange" "$M/a" "$M/b"
ok cmp "$M/a" "$M/b"
ok hf sync v
x1=$(stored)
[ $((x1 - x0)) -lt 2000000 ] || fail "a copy stored $((x1 - x0)) bytes again"
ok cmp "$M/a" "$M/b"
# Changing the copy leaves the original.
echo changed | dd of="$M/b" conv=notrunc bs=1 seek=12345678 status=none
ok hf sync v
sum=$(sha256sum <"$M/a") sumb=$(sha256sum <"$M/b")
umount_volume
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
eq "$(sha256sum <"$M/a")" "$sum"
eq "$(sha256sum <"$M/b")" "$sumb"
# No name and no content is seen on a node.  (A short word is in so many random bytes at times.)
grep -r -l -a -e file-000001 -e small-files "$W/n" && fail "a name on a node"
exit 0
