# SPDX-License-Identifier: GPL-3.0-or-later
# kill -9 of the daemon at KILLS (50) random points under load: every fsynced byte is there
# after the next mount, the database is sound, and publication goes on.
. "$(dirname "$0")/lib.sh"
KILLS=${KILLS:-50}
new_volume
mkdir "$W/log"
for i in $(seq "$KILLS"); do
	mount_volume -o interval=1
	"$TOOLS/fsynced" verify "$M" "$W/log" >"$W/verify" || { cat "$W/verify"; fail "kill $i: an fsynced byte is lost"; }
	for j in 1 2 3; do "$TOOLS/fsynced" work "$M" "$W/log" $j $((SEED + i * 10 + j)) 2>/dev/null & done
	"$TOOLS/churn" "$M/churn" $((SEED + i)) 2>/dev/null &
	sleep 0.$((RANDOM % 9 + 1))$((RANDOM % 10))
	[ $((i % 3)) -eq 0 ] && sleep 1
	kill_volume
	wait
	if [ $((i % 10)) -eq 0 ]; then
		hf fsck v >"$W/fsck" || { cat "$W/fsck"; fail "kill $i: fsck finds something"; }
	fi
done
mount_volume
ok "$TOOLS/fsynced" verify "$M" "$W/log"
tail -n 1 "$W/verify"
ok hf sync v --protected
tree "$M" >"$W/want"
umount_volume
ok hf fsck v --nodes --deep
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
tree "$M" >"$W/got"
diff "$W/want" "$W/got" || fail "what was published is not what was there"
