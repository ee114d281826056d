#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What is deleted goes from the nodes, whatever happens meanwhile, and nothing else does.
. "$(dirname "$0")/lib.sh"
have jq

export HOLDFAST_PACE=grace=200,stray=1000,compact=300
shards() { find "$W"/n/*/s -type f ! -name '.*' 2>/dev/null | wc -l; }
stored() { find "$W"/n/*/s -type f ! -name '.*' -printf '%s\n' 2>/dev/null | awk '{ s += $1 } END { print s + 0 }'; }
no_garbage='.garbage.segments == 0 and .unpublished.files == 0 and .unpublished.bytes == 0'

new_volume
mount_volume -o interval=1

# Everything is deleted: the nodes become empty of contents.
make_tree "$M/tree"
for i in 1 2 3 4; do head -c 3000000 /dev/urandom >"$M/big$i" || fail "writing"; done
ok hf sync v
zombie=$(find "$W/n/1/s" -type f ! -name '.*' -size +100k | head -1)
[ "$zombie" ] || fail "no shard on node 1"
cp "$zombie" "$W/zombie"
[ "$(stored)" -gt 12000000 ] || fail "only $(stored) bytes on the nodes"
hf status v --json | jq -e '.garbage | has("bytes") and has("segments")' >/dev/null || fail "status"
rm -rf "$M/tree" "$M"/big*
ok hf sync v
until_status "$no_garbage"
# What is left is moved together, and a log's parts may be there.
until_small() {
	local i
	for i in $(seq 150); do
		[ "$(stored)" -le "$1" ] && return 0
		sleep 0.2
	done
	fail "still $(stored) bytes in $(shards) shards"
}
until_small 500000

# A request that comes through long after everybody gave it up leaves a shard nobody knows.
until_gone() {
	local i
	for i in $(seq 150); do
		[ -e "$zombie" ] || return 0
		sleep 0.2
	done
	fail "the stray shard is still there"
}
[ -e "$zombie" ] && fail "the shard was not deleted"
cp "$W/zombie" "$zombie"
until_gone

# Every second file is deleted: what lives is moved together, and is the same.
mkdir "$M/d"
for i in $(seq 120); do head -c 60000 /dev/urandom >"$M/d/$i" || fail "writing"; done
ok hf sync v
before=$(stored)
for i in $(seq 120); do [ $((i % 5)) -eq 0 ] || rm "$M/d/$i"; done
tree "$M" >"$W/want"
ok hf sync v
until_small $((before / 2))
until_status "$no_garbage"
umount_volume
ok hf fsck v --nodes --deep >/dev/null
ok hf recover --take-over "$W/kit.txt" w --passphrase-file "$W/pass" >/dev/null
ok hf mount w "$M"
tree "$M" >"$W/got"
cmp "$W/want" "$W/got" || fail "the tree differs after the move and a recovery"
# What the machine before still sent is found there too, once this one has a log of its own.
cp "$W/zombie" "$zombie"
for i in 1 2; do
	echo "$i" >"$M/own"
	ok hf sync w >/dev/null
done
tree "$M" >"$W/want"
until_gone
ok hf umount "$M"
ok hf fsck w --nodes --deep >/dev/null
ok hf mount w "$M"
tree "$M" >"$W/got"
cmp "$W/want" "$W/got" || fail "the tree differs"
ok hf umount "$M"
