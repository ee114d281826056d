# SPDX-License-Identifier: GPL-3.0-or-later
# Every way in which a server or the way to it fails, on two of six nodes at once (see
# servers/faults.sh): the first half of them.  Arguments name the kinds to take.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
. "$ROOT/tests/servers/faults.sh"
words=("$@")
faulty_drive

pair refuse n1 hang n3
pair crash n2 password n5
pair hole n2 status429 n4
pair mute n3 redirect n5
pair garbage n6 status503 n1
pair reset n4 corrupt n2
pair midbody n5 stale n3

ok hf sync v --protected
umount_volume
ok hf fsck v --nodes --deep
exit 0
