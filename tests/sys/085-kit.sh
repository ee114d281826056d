# SPDX-License-Identifier: GPL-3.0-or-later
# The kit in its other forms: what a scanner reads of the QR code recovers the drive, on paper
# the text fits one page, and the kit is not given out where it is not to be had.
. "$(dirname "$0")/lib.sh"
have zbarimg
new_volume
mount_volume
echo kept >"$M/file"
ok hf sync v
umount_volume
[ "$(wc -l <"$W/kit.txt")" -le 60 ] || fail "the kit does not fit a page"
[ "$(awk '{ print length }' "$W/kit.txt" | sort -n | tail -n 1)" -le 90 ] || fail "the kit's lines are too long"
ok hf kit v --output "$W/copy.txt"
ok cmp "$W/kit.txt" "$W/copy.txt"
ok hf kit v --qr-png "$W/kit.png"
zbarimg -q --raw "$W/kit.png" >"$W/scanned" 2>/dev/null || fail "a scanner cannot read the code"
ok hf kit v --qr >"$W/qr"
grep -q '█' "$W/qr" || fail "no code for the terminal"
[ "$(stat -c %a "$W/kit.png")" = 600 ] || fail "the picture of the kit is readable by others"
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/scanned" v >/dev/null 2>&1
mount_volume
eq "$(cat "$M/file")" kept
umount_volume
# Where the kit is not to be had, that is said.
rm "$W/scanned"
no 1 hf kit v
says kit
