# SPDX-License-Identifier: GPL-3.0-or-later
# Large things: a directory of COUNT entries (COUNT=1000000 is the long form), a file of 5 TiB,
# a path as long as paths may be, and all of it again after a mount and after a recovery.
. "$(dirname "$0")/lib.sh"
COUNT=${COUNT:-100000}
new_volume
mount_volume -o interval=2
big() { ok "$TOOLS/bigdir" "$@"; }
time big fill "$M/big" "$COUNT"
big check "$M/big" "$COUNT"
eq "$(find "$M/big" -mindepth 1 | wc -l)" "$COUNT"
big deep "$M"
ok truncate -s 5T "$M/huge"
printf 'start' | dd of="$M/huge" conv=notrunc status=none
printf 'middle' | dd of="$M/huge" conv=notrunc oflag=seek_bytes seek=4398046511100 status=none
printf 'end' | dd of="$M/huge" conv=notrunc oflag=seek_bytes seek=5497558138880 status=none
huge() {
	eq "$(stat -c %s "$M/huge")" 5497558138883
	eq "$(head -c 5 "$M/huge")" start
	eq "$(dd if="$M/huge" iflag=skip_bytes,count_bytes skip=4398046511100 count=6 status=none)" middle
	eq "$(tail -c 3 "$M/huge")" end
	eq "$(dd if="$M/huge" iflag=skip_bytes,count_bytes skip=3000000000000 count=70000 status=none | tr -d '\0' | wc -c)" 0
	[ "$(stat -c %b "$M/huge")" -lt 2048 ] || fail "the huge file takes $(stat -c %b "$M/huge") blocks"
}
huge
umount_volume

mount_volume -o interval=2
big check "$M/big" "$COUNT"
big deepcheck "$M"
huge
time big halve "$M/big" "$COUNT"
big check "$M/big" "$COUNT" half
ok hf sync v
umount_volume
mount_volume
big check "$M/big" "$COUNT" half
umount_volume
ok hf fsck v --nodes

export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
big check "$M/big" "$COUNT" half
big deepcheck "$M"
huge
ok rm "$M/huge"
time ok rm -r "$M/big" "$M/$(printf 'a%.0s' $(seq 199))"
eq "$(find "$M" | wc -l)" 1 "something was left"
ok hf sync v
