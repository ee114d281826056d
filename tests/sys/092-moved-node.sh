# SPDX-License-Identifier: GPL-3.0-or-later
# A node whose address changed after the kit and the header were written: a recovery learns
# the new one from the commits, and its own header has it.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume
echo one >"$M/one"
ok hf sync v
umount_volume
mv "$W/n/3" "$W/n/moved"
f=$HOLDFAST_HOME/v/volume.json
sed -i "s|$W/n/3\"|$W/n/moved\"|" "$f"
grep -q "$W/n/moved" "$f" || fail "volume.json does not name the node"
mount_volume
echo two >"$M/two"
ok hf sync v --protected
ok hf umount "$M"
for h in home2 home3; do
	export HOLDFAST_HOME=$W/$h
	hf recover "$W/kit.txt" v >"$W/out" 2>&1 || { cat "$W/out"; fail "recover"; }
	grep -q "$W/n/moved" "$HOLDFAST_HOME/v/volume.json" || fail "the new address is not known to $h"
	mount_volume
	until_status '[.nodes[] | select(.state == "up")] | length == 6'
	eq "$(cat "$M/two")" two
	ok hf umount "$M"
done
