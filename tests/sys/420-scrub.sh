#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A flipped bit and a shard that went are found, their nodes are named, and all is repaired.
. "$(dirname "$0")/lib.sh"
have jq

some_shard() { find "$W/n/$1/s" -type f ! -name '.*' | sort | head -1; }
flip() { printf '\x5a\xa5\x5a' | dd of="$1" bs=1 seek=5000 conv=notrunc status=none || fail "flip"; }

new_volume
mount_volume -o interval=1
for i in 1 2 3; do head -c 2000000 /dev/urandom >"$M/f$i" || fail "writing"; done
ok hf sync v --protected
tree "$M" >"$W/want"

# Now, on a mounted drive.
ok hf scrub v >/dev/null
flip "$(some_shard 3)"
gone=$(some_shard 5)
rm "$gone"
hf scrub v >"$W/out" && fail "scrub found nothing"
grep -q "on node 3 is damaged" "$W/out" || { cat "$W/out"; fail "node 3 is not named"; }
grep -q "not on node 5" "$W/out" || { cat "$W/out"; fail "node 5 is not named"; }
ok hf sync v --protected
ok hf scrub v >/dev/null
[ -e "$gone" ] || fail "the shard is not back"
hf status v --json | jq -e '.nodes[2].state == "lying"' >/dev/null || hf status v --json

# Not mounted: the next mount repairs.
umount_volume
rm "$(some_shard 2)"
flip "$(some_shard 4)"
hf scrub v >"$W/out" && fail "scrub found nothing"
mount_volume -o interval=1
ok hf sync v --protected
umount_volume
ok hf scrub v

# By itself: a pass takes two seconds here, and nobody asks for it.
flip "$(some_shard 6)"
cp "$(some_shard 6)" "$W/damaged"
bad=$(some_shard 6)
# fsck without scrub's mark changes nothing.
hf fsck v --nodes --deep >/dev/null && fail "fsck found nothing"
HOLDFAST_PACE=scrub=2,limit=1000000000 mount_volume -o interval=1
for i in $(seq 150); do
	cmp -s "$bad" "$W/damaged" || break
	sleep 0.2
done
cmp -s "$bad" "$W/damaged" && fail "nothing repaired it"
hf status v --json | jq -e '.nodes[5].error | contains("not genuine")' >/dev/null ||
	hf status v --json | jq '.nodes[5]'
ok hf sync v --protected
tree "$M" >"$W/got"
cmp "$W/want" "$W/got" || fail "the tree differs"
umount_volume
ok hf fsck v --nodes --deep
