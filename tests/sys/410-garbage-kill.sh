#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# kill -9 at random instants while garbage is collected, moved and looked for; and a takeover
# while the old machine collects.  Nothing that lives is missed.
. "$(dirname "$0")/lib.sh"
have jq

export HOLDFAST_PACE=grace=1,stray=100,compact=1
new_volume
for round in $(seq 10); do
	mount_volume -o interval=1
	mkdir -p "$M/d"
	for i in $(seq 30); do
		head -c $((RANDOM % 90000)) /dev/urandom >"$M/d/$((RANDOM % 60))" || fail "writing"
	done
	ok hf sync v >/dev/null
	for i in $(seq 60); do [ $((RANDOM % 2)) -eq 0 ] && rm -f "$M/d/$i"; done
	ok hf sync v >/dev/null
	tree "$M" >"$W/want"
	sleep "0.$(printf %03d $((RANDOM % 700)))"
	kill_volume
	mount_volume -o interval=1
	tree "$M" >"$W/got"
	cmp "$W/want" "$W/got" || fail "round $round: the tree differs"
	[ $((round % 3)) -eq 0 ] && kill_volume || umount_volume
	rm -rf "$W/home/v/data.none"
done
ok hf fsck v --nodes --deep

# The old machine goes on collecting while another takes its drive over.
mount_volume -o interval=1
ok rm -rf "$M/d"
mkdir "$M/e"
for i in $(seq 40); do head -c 50000 /dev/urandom >"$M/e/$i" || fail "writing"; done
ok hf sync v >/dev/null
for i in $(seq 40); do [ $((i % 4)) -eq 0 ] || rm "$M/e/$i"; done
ok hf sync v >/dev/null
tree "$M" >"$W/want"
mkdir "$W/m2"
(
	export HOLDFAST_HOME=$W/home2
	ok hf recover "$W/kit.txt" v --passphrase-file "$W/pass" >/dev/null
	ok hf mount v "$W/m2" -o interval=1
)
# What the new machine writes is unknown to the old one, which looks for strays all the time.
for i in $(seq 20); do head -c 80000 /dev/urandom >"$W/m2/new$i" || fail "writing"; done
HOLDFAST_HOME=$W/home2 ok hf sync v >/dev/null
touch "$M/late" 2>/dev/null
until_status '.warning != null and (.warning | contains("recovered on another machine"))'
tree "$W/m2" >"$W/want2"
umount -l "$M" 2>/dev/null || fusermount3 -uz "$M"
HOLDFAST_HOME=$W/home2 ok hf umount "$W/m2"
HOLDFAST_HOME=$W/home2 ok hf fsck v --nodes --deep
# Read from the nodes alone.
(
	export HOLDFAST_HOME=$W/home3
	ok hf recover "$W/kit.txt" v --passphrase-file "$W/pass" >/dev/null
	ok hf mount v "$W/m2"
)
tree "$W/m2" >"$W/got2"
cmp "$W/want2" "$W/got2" || fail "something of the recovered drive is missing"
grep -q "e/40" "$W/got2" || fail "no file of before"
HOLDFAST_HOME=$W/home3 ok hf umount "$W/m2"
