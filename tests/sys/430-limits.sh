#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# -o repair_limit= and scrub_limit= hold: what is rebuilt, moved or verified takes at least its
# time.  There is no upper bound in here.
. "$(dirname "$0")/lib.sh"
have jq
MIB=1048576
SHARD=$((4 * MIB)) # of a full segment, 4 + 2

took() { # SECONDS SINCE: not less than that
	local now
	now=$(date +%s%N)
	[ $(((now - $2) / 1000000)) -ge $(($1 * 1000)) ] ||
		fail "$(((now - $2) / 1000000)) ms, and the limit allows not less than $1 s"
}
new_volume
ok hf node add v "dir:$W/n/7" >/dev/null
for o in repair_limit=0 repair_limit= scrub_limit=fast scrub_limit=-1; do
	no 2 hf mount v "$M" -o "$o"
	says "bytes a second"
done

# Three segments, without node 1; then it is there again, and K shards are read for each.
mv "$W/n/1" "$W/n/2" "$W/"
mount_volume -o interval=1
for i in 1 2 3; do
	head -c $((16 * MIB)) /dev/urandom >"$M/f$i" || fail "writing"
	ok hf sync v
done
ok hf umount "$M" --now
mv "$W/1" "$W/2" "$W/n/"
t0=$(date +%s%N)
mount_volume -o interval=1,repair_limit=$((8 * MIB))
ok hf sync v --protected
took $((2 * 4 * SHARD / (8 * MIB))) "$t0"

# A node that holds shards of two segments at least is drained.
umount_volume
mount_volume -o interval=1,repair_limit=2M
node=$(hf node list v --json | jq -r "[.[] | select(.bytes > 2 * $SHARD)][0].name")
held=$(hf node list v --json | jq -r ".[] | select(.name == \"$node\") | .bytes / $SHARD | floor")
[ "$held" -ge 2 ] || fail "no node holds two full shards"
t0=$(date +%s%N)
ok hf node drain v "$node" 2>/dev/null >&2
took $(((held - 1) * SHARD / (2 * MIB))) "$t0"
ok hf sync v --protected
umount_volume

# The last segment is damaged: a pass comes to it not before its time.
bad=$(find "$W"/n/*/s -type f -size +3M -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)
printf '\x5a\xa5\x5a' | dd of="$bad" bs=1 seek=5000 conv=notrunc status=none || fail "flip"
cp "$bad" "$W/damaged"
t0=$(date +%s%N)
HOLDFAST_PACE=scrub=1,audit=1000000000 mount_volume -o interval=1,scrub_limit=12M
for i in $(seq 300); do
	cmp -s "$bad" "$W/damaged" || break
	sleep 0.2
done
cmp -s "$bad" "$W/damaged" && fail "nothing repaired it"
ok hf sync v --protected
ok hf scrub v >/dev/null
umount_volume
