# SPDX-License-Identifier: GPL-3.0-or-later
# Thousands of small commits: no node holds more than about 2,000 objects of the log, and the
# drive is recovered from any four nodes.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume
make_tree "$M/t"
for i in $(seq "${COMMITS:-2300}"); do
	echo "$i" >"$M/n$((i % 50))"
	hf sync v >/dev/null || fail "sync $i"
done
until_status '.published.seq >= 2000'
for k in $(seq 600); do
	n=$(find "$W/n/1/l" -type f ! -name '.*' | wc -l)
	[ "$n" -le 1900 ] && break
	sleep 0.2
done
echo "$(hf status v --json | jq .published.seq) commits, $n objects"
[ "$n" -le 1900 ] || fail "$n log objects on a node"
tree "$M" >"$W/want"
umount_volume
for pair in "1 2" "3 6" "4 5"; do
	for i in $pair; do mv "$W/n/$i" "$W/n/$i.away"; done
	export HOLDFAST_HOME=$W/home-${pair// /}
	hf recover "$W/kit.txt" v >"$W/out" 2>&1 || { cat "$W/out"; fail "recover without $pair"; }
	mount_volume
	tree "$M" >"$W/got"
	diff "$W/want" "$W/got" || fail "recovered without $pair, but the tree differs"
	ok hf umount "$M" --now
	for i in $pair; do mv "$W/n/$i.away" "$W/n/$i"; done
done
