# SPDX-License-Identifier: GPL-3.0-or-later
# Two at the same time, one that is stopped, one that is killed or interrupted at any point.
. "$(dirname "$0")/lib.sh"
urls=()
for i in e1 e2 3 4; do urls+=(--node "dir:$W/k/$i"); done

# create and recover killed at random points: the next run clears up and does it.
for i in $(seq 8); do
	mkdir -p "$W/k/e1" "$W/k/e2"
	"$HOLDFAST" create k "${urls[@]}" --kit "$W/kitk" >/dev/null 2>&1 &
	p=$!
	sleep "0.0$((RANDOM % 9))"
	kill -9 $p 2>/dev/null
	wait $p 2>/dev/null
	if [ ! -e "$HOLDFAST_HOME/k/volume.json" ]; then
		ok hf create k "${urls[@]}" --kit "$W/kitk" >/dev/null
	fi
	ok hf fsck k --deep >/dev/null
	rm -rf "$HOLDFAST_HOME/k"
	"$HOLDFAST" recover "$W/kitk" k >/dev/null 2>&1 &
	p=$!
	sleep "0.0$((RANDOM % 9))"
	kill -9 $p 2>/dev/null
	wait $p 2>/dev/null
	[ -e "$HOLDFAST_HOME/k" ] || ok hf recover "$W/kitk" k >/dev/null
	ok hf fsck k --deep >/dev/null
	eq "$(ls -A "$HOLDFAST_HOME")" k "what killed recoveries left"
	rm -rf "$HOLDFAST_HOME/k" "$W/k" "$W/kitk"
done
# Interrupted: nothing is left at once.
for i in $(seq 8); do
	mkdir -p "$W/k/e1" "$W/k/e2"
	timeout -s INT "0.0$((RANDOM % 6 + 1))" "$HOLDFAST" create k "${urls[@]}" --kit "$W/kitk" >/dev/null 2>&1
	if [ ! -e "$HOLDFAST_HOME/k" ]; then
		eq "$(ls -A "$W/k" | tr '\n' ' ')$(ls -A "$W/k/e1" "$W/k/e2" | grep -v :)" "e1 e2 " "what an interrupted create left"
		[ -e "$W/kitk" ] && fail "an interrupted create left its kit"
	fi
	rm -rf "$HOLDFAST_HOME/k" "$W/k" "$W/kitk"
done
# One node is the business of one create, also from another state directory.
for i in $(seq 6); do
	mkdir -p "$W/k/e1" "$W/k/e2"
	for h in 1 2; do
		HOLDFAST_HOME=$W/home$h "$HOLDFAST" create k "${urls[@]}" --kit "$W/kit$h" >/dev/null 2>"$W/err$h" &
	done
	wait
	won=
	for h in 1 2; do [ -e "$W/home$h/k" ] && won+=$h; done
	[ ${#won} -le 1 ] || fail "two creates have the same nodes"
	if [ "$won" ]; then
		(HOLDFAST_HOME=$W/home$won ok hf fsck k --deep >/dev/null) || fail "the loser took from the winner"
		eq "$(grep -c . "$W/err$((3 - won))")" 1 "lines of the loser"
	fi
	rm -rf "$W"/home[12] "$W/k" "$W"/kit[12]
done
# Two of one name; two mounts; two recoveries of one name.
"$HOLDFAST" create k --kit "$W/kit1" >/dev/null 2>&1 &
"$HOLDFAST" create k --kit "$W/kit2" >/dev/null 2>&1 &
wait
ok hf fsck k --deep >/dev/null
rm -rf "$HOLDFAST_HOME/k" "$W"/kit[12]

new_volume
mkdir "$W/m2"
for i in 1 2 3; do
	"$HOLDFAST" mount v "$M" >/dev/null 2>"$W/err1" & a=$!
	"$HOLDFAST" mount v "$W/m2" >/dev/null 2>"$W/err2" & b=$!
	wait $a; a=$?
	wait $b; b=$?
	eq "$((a + b))" 1 "statuses of two mounts at once: $(cat "$W"/err[12])"
	eq "$(cat "$W"/err[12] | grep -c .)" 1 "lines of error"
	[ $a -eq 0 ] && at=$M || at=$W/m2
	# status and sync while it ends, and a second umount
	hf umount "$at" 2>"$W/err1" & u=$!
	hf status v --json >"$W/st" 2>/dev/null && jq -e .volume "$W/st" >/dev/null
	# Either may be the one that does it; the other helped, or came too late.
	hf umount "$at" 2>"$W/err2"; b=$?
	wait $u; u=$?
	[ $u -eq 0 ] || [ $b -eq 0 ] || fail "umount beside another one: $(cat "$W"/err[12])"
	[ $u -eq 0 ] || grep -q "no volume is mounted" "$W/err1" || fail "umount beside another one: $(cat "$W/err1")"
	[ $b -eq 0 ] || grep -q "no volume is mounted" "$W/err2" || fail "a second umount: $(cat "$W/err2")"
	mountpoint -q "$at" && fail "still mounted"
	hf status v --json | jq -e '.mounted == false' >/dev/null || fail "status after umount"
done

# A process that is stopped: every command ends with a line, and kill -9 loses nothing.
mount_volume
echo kept >"$M/f"
sync "$M/f"
p=$(daemon_pid)
kill -STOP "$p"
t=$SECONDS
for c in "status v" "sync v" "mount v $W/m2" "umount $M" "fsck v --nodes"; do
	# shellcheck disable=SC2086
	no 1 timeout 20 "$HOLDFAST" $c
	says "stopped"
done
[ $((SECONDS - t)) -lt 50 ] || fail "waiting for a stopped process took $((SECONDS - t)) s"
# It dies while a mount waits for its answer (by then; if not, this shows less).
"$HOLDFAST" mount v "$M" 2>"$W/err" & a=$!
sleep 0.3
kill -9 "$p"
wait $a || fail "a mount that asked one that was dying: $(cat "$W/err")"
eq "$(cat "$M/f")" kept
# The same when its socket is closed already and the kernel's requests are not yet ended.
p=$(daemon_pid)
mv "$HOLDFAST_HOME/v/sock" "$W/sock"
kill -STOP "$p"
"$HOLDFAST" mount v "$M" 2>"$W/err" & a=$!
sleep 0.5
kill -9 "$p"
wait $a || fail "a mount beside one that was dying: $(cat "$W/err")"
eq "$(cat "$M/f")" kept
umount_volume
