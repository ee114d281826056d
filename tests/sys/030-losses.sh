# SPDX-License-Identifier: GPL-3.0-or-later
# P1 and P2: any two of six nodes away: every byte readable on the machine whose cache is
# empty, for all 15 pairs; and a recovery from the kit for each pair.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume
make_tree "$M/t" "$SEED"
tree "$M" >"$W/want"
ok hf sync v --protected
umount_volume
for a in 1 2 3 4 5; do
	for b in $(seq $((a + 1)) 6); do
		mv "$W/n/$a" "$W/n/$b" "$W/"
		HOLDFAST_HOME=$W/home-$a$b
		export HOLDFAST_HOME
		ok hf recover "$W/kit.txt" v >"$W/recover.out" 2>&1
		mount_volume
		tree "$M" >"$W/got"
		diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "without nodes $a and $b the tree differs"; }
		hf status v --json | jq -e '[.nodes[] | select(.state != "up" and .state != "slow")] | length == 2' >/dev/null ||
			fail "status does not name the two lost nodes"
		ok hf umount "$M" --now
		ok hf fsck v
		rm -rf "$HOLDFAST_HOME"
		mv "$W/$a" "$W/$b" "$W/n/"
	done
done
# Three away: said, and nothing is made up.
mv "$W/n/1" "$W/n/2" "$W/n/3" "$W/"
export HOLDFAST_HOME=$W/home-123
no 1 hf recover "$W/kit.txt" v
says 3
[ -e "$HOLDFAST_HOME/v" ] && fail "a recovery that failed left something"
exit 0
