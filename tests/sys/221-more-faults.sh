# SPDX-License-Identifier: GPL-3.0-or-later
# The second half of 220, and what is left afterwards.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
. "$ROOT/tests/servers/faults.sh"
words=("$@")
faulty_drive

pair stall n1 truncated n6
pair shortened n2 cutup n4
pair lostack n3 zombie n5
pair whole n6 gzip n1
pair slow n4 corrupt n6
pair twice n2 late n3
pair sometimes n5 sometimes n1

# What was repaired is really there: of the nodes that never failed last, two go.
ok hf sync v --protected
want
umount_volume
ok hf fsck v --nodes --deep
server_stop n4
server_stop n6
fresh
same "without n4 and n6"
# The control: what the proxies do is not harmless.  Three are too many.
fault n1 '{"do":"corrupt","match":"^GET .*/s/"}'
ok hf umount "$M" --now
export HOLDFAST_HOME=$W/home-x
if hf recover "$W/kit.txt" v >/dev/null 2>&1; then
	mount_volume
	(cd "$M" && timeout 100 "$TOOLS/treesum" . 2>/dev/null) >"$W/got" && cmp -s "$W/want" "$W/got" && fail "three of six nodes fail and nothing is missed"
fi
exit 0
