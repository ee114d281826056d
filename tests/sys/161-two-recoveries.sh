# SPDX-License-Identifier: GPL-3.0-or-later
# Two machines recover one drive at the same moment, the old one still publishing: at most one
# of them has it in the end, nothing that was ever published is lost, and the next recovery,
# with any two nodes away, sees one history.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume
make_tree "$M/t"
ok hf sync v
tree "$M/t" >"$W/want"
declare -A published
(
	i=0
	while :; do
		i=$((i + 1))
		echo "$i" >"$M/live$i"
		hf sync v --timeout 20 >/dev/null 2>&1 || break
		echo $i >"$W/live"
	done
) &
writer=$!
mkdir "$W/x" "$W/y"
last=
for round in 1 2 3 4; do
	# One of two that both came to an end may not know what the other publishes now.
	earlier=("${!published[@]}")
	for h in a b; do
		HOLDFAST_HOME=$W/home-$round$h hf recover "$W/kit.txt" v >"$W/$h.out" 2>"$W/$h.err" &
		pids[$([ $h = a ] && echo 0 || echo 1)]=$!
		sleep 0.0$((RANDOM % 10))
	done
	won=
	wait "${pids[0]}" && won="a"
	wait "${pids[1]}" && won="$won b"
	echo "round $round: recovered: ${won:-none}; $(cat "$W"/[ab].err | tr "\n" " ")"
	n=0
	for h in $won; do
		export HOLDFAST_HOME=$W/home-$round$h
		ok hf mount v "$W/x"
		tree "$W/x/t" >"$W/got"
		diff "$W/want" "$W/got" || fail "the tree of $round$h differs"
		for f in "${earlier[@]}"; do
			eq "$(cat "$W/x/$f")" "$f" "published by an earlier one"
		done
		echo "by$round$h" >"$W/x/by$round$h"
		if hf sync v --timeout 20 >/dev/null 2>"$W/err"; then
			n=$((n + 1))
			published[by$round$h]=1
		fi
		hf umount "$W/x" >/dev/null 2>&1 || hf umount "$W/x" --now || fail "umount $round$h"
	done
	[ $n -le 1 ] || fail "$n machines publish"
done
kill $writer 2>/dev/null
wait $writer 2>/dev/null
last=$(cat "$W/live" 2>/dev/null || echo 0)
export HOLDFAST_HOME=$W/home
hf umount "$M" --now
for pair in "1 2" "3 6" "4 5"; do
	for i in $pair; do mv "$W/n/$i" "$W/n/$i.away"; done
	export HOLDFAST_HOME=$W/home-end-${pair// /}
	hf recover "$W/kit.txt" v >"$W/out" 2>&1 || { cat "$W/out"; fail "recover without $pair"; }
	ok hf mount v "$W/y"
	for f in "${!published[@]}"; do eq "$(cat "$W/y/$f")" "$f"; done
	for i in $(seq "$last"); do eq "$(cat "$W/y/live$i")" "$i" "what the first machine published"; done
	ok hf umount "$W/y" --now
	for i in $pair; do mv "$W/n/$i.away" "$W/n/$i"; done
done
ok hf mount v "$W/y"
ok hf sync v --protected
ok hf umount "$W/y"
ok hf fsck v --nodes --deep
