# SPDX-License-Identifier: GPL-3.0-or-later
# Everything at once: programs that write, copy, cut and read, a cache too small for it, saves,
# checks, and a node that comes and goes.  Afterwards all is whole and stays so.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume -o cache_size=48M
jobs=()
for i in 1 2 3 4; do
	"$TOOLS/churn" "$M/churn$((i % 2))" $((SEED + i)) 2000 &
	jobs+=($!)
done
(for i in 1 2 3 4 5 6; do
	head -c 20000000 /dev/urandom >"$M/big$((i % 3))" && cp "$M/big$((i % 3))" "$M/copy$i" &&
		truncate -s $((i * 1500000)) "$M/copy$i" || exit 1
done) &
jobs+=($!)
(for _ in 1 2 3 4 5 6; do
	hf sync v && hf status v --json || exit 1
	hf fsck v --nodes
	[ $? -le 1 ] || exit 1 # 1: the node is away
done >"$W/calls" 2>&1) &
jobs+=($!)
# What others rename or remove is missed at times: only an end to it is asked for.
(for _ in 1 2 3; do find "$M" -type f -exec cat {} + >/dev/null 2>&1; done; true) &
jobs+=($!)
(for _ in 1 2 3 4 5; do
	mv "$W/n/2" "$W/n/away" && sleep 0.5 && mv "$W/n/away" "$W/n/2" && sleep 0.5 || exit 1
done) &
jobs+=($!)
for j in "${jobs[@]}"; do
	wait "$j" || { tail -n 5 "$W/calls"; fail "one of them failed"; }
done
ok hf sync v --protected
tree "$M" >"$W/want"
umount_volume
ok hf fsck v --nodes --deep
rm -rf "$HOLDFAST_HOME"
ok hf recover "$W/kit.txt" v >"$W/recover.out" 2>&1
mount_volume -o cache_size=16M
tree "$M" >"$W/got"
diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "the tree differs"; }
umount_volume
exit 0
