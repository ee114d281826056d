# SPDX-License-Identifier: GPL-3.0-or-later
# P5: every shard of two nodes missing, truncated, extended, flipped, exchanged or foreign:
# the bytes are right all the same and the node is named; fsck --nodes --deep finds it.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume
make_tree "$M/t" "$SEED"
ok hf sync v
make_tree "$M/u" 5
# Which shard of a segment a node has is a hash, and parity may not be read at all: of so many
# segments each node has something that is.
for i in 1 2 3 4 5 6; do
	head -c 100000 /dev/urandom >"$M/one$i"
	ok hf sync v
done
tree "$M" >"$W/want"
ok hf sync v --protected
umount_volume
cp -a "$W/n" "$W/good"
# Another volume, for foreign shards.
urls=()
for i in 1 2 3 4 5 6; do urls+=(--node "dir:$W/f/$i"); done
mkdir "$W/f"
ok hf create f "${urls[@]}" --survive 2 --kit "$W/kit-f" >/dev/null
ok hf mount f "$M"
make_tree "$M/t" 99
ok hf sync f
ok hf umount "$M"

flip() { # file: one bit somewhere
	local size off
	size=$(stat -c %s "$1")
	off=$(((RANDOM * 32768 + RANDOM) % size))
	printf "\\x$(printf %02x $((0x$(od -An -tx1 -j $off -N1 "$1" | tr -d ' ') ^ (1 << RANDOM % 8))))" |
		dd of="$1" bs=1 seek=$off conv=notrunc status=none
}
shards() { find "$W/n/$1/s" -type f; }
hurt() { # how node
	local f first prev='' foreign
	for f in $(shards "$2"); do
		case $1 in
		missing) rm "$f" ;;
		truncated) truncate -s -5 "$f" ;;
		empty) : >"$f" ;;
		extended) echo x >>"$f" ;;
		flipped) for _ in $(seq 10); do flip "$f"; done ;;
		exchanged)
			[ "$prev" ] && mv "$f" "$W/tmp" && mv "$prev" "$f" && mv "$W/tmp" "$prev" && prev= && continue
			prev=$f
			;;
		other-node) # the shard of the same segment from another node would have another name
			first=$(find "$W/good/4/s" -type f -size "$(stat -c %s "$f")c" | head -n 1)
			cp "${first:-$W/kit.txt}" "$f"
			;;
		foreign)
			foreign=$(find "$W/f/1/s" -type f | head -n 1)
			cp "$foreign" "$f"
			;;
		esac
	done
}
for how in missing truncated empty extended flipped exchanged other-node foreign; do
	rm -rf "$W/n" && cp -a "$W/good" "$W/n"
	hurt $how 3
	hurt $how 5
	export HOLDFAST_HOME=$W/home-$how
	ok hf recover "$W/kit.txt" v >/dev/null 2>&1
	mount_volume
	tree "$M" >"$W/got"
	diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "$how: wrong bytes"; }
	hf status v --json >"$W/status"
	case $how in
	missing | extended) ;;
	*) jq -e '[.nodes[] | select(.state == "lying" or (.error // "") != "") | .url] | contains(["dir:'"$W"'/n/3"])' "$W/status" >/dev/null ||
		{ jq .nodes "$W/status"; fail "$how: node 3 is not named"; } ;;
	esac
	jq -e '[.nodes[] | select(.state == "lying") | .url] - ["dir:'"$W"'/n/3", "dir:'"$W"'/n/5"] | length == 0' "$W/status" >/dev/null ||
		fail "$how: an honest node is called a liar"
	ok hf umount "$M" --now
	# What is missing is rebuilt by the mount itself, if it comes to it.
	if hf fsck v --nodes --deep >"$W/fsck" 2>&1; then
		[ $how = missing ] && grep -q "it had: rebuilt" "$HOLDFAST_HOME/v/log" ||
			fail "$how: fsck --deep finds nothing"
	fi
	rm -rf "$HOLDFAST_HOME"
done
exit 0
