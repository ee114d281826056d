# SPDX-License-Identifier: GPL-3.0-or-later
# mount --supervise: a killed daemon is back on the same mount point, with what was written; a
# wanted end, also of a daemon that is dead or stopped, ends the supervisor; a mount that dies
# again and again is given up with a line in the log.  How long it takes is printed.
. "$(dirname "$0")/lib.sh"
WITHIN=20 # seconds; it is there to end a test that hangs
new_volume
supervisor() { # its pid: the parent of the daemon
	awk '{ print $4 }' "/proc/$1/stat"
}
runs() { [ -e "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }
gone() { # pid seconds
	local i
	for i in $(seq $(($2 * 20))); do
		runs "$1" || return 0
		sleep 0.05
	done
	return 1
}
# Until another daemon than $1 serves the mount; prints its pid.
back() {
	local i p
	for i in $(seq $((WITHIN * 50))); do
		p=$(hf status v --json 2>/dev/null | jq -r 'select(.mounted) | .pid')
		[ "$p" ] && [ "$p" != "$1" ] && [ "$p" != null ] && { echo "$p"; return 0; }
		sleep 0.02
	done
	tail -n 20 "$HOLDFAST_HOME/v/log" >&2
	return 1
}
mount_volume --supervise
d=$(daemon_pid)
s=$(supervisor "$d")
[ "$s" -gt 1 ] || fail "no supervisor"
eq "$(tr '\0' ' ' <"/proc/$s/cmdline" | grep -c -- --supervise)" 1
# ThreadSanitizer's runtime has one of its own.
nm -D "$HOLDFAST" 2>/dev/null | grep -q __tsan_init ||
	[ -z "$(ls "/proc/$s/task" | grep -v "^$s$")" ] || fail "the supervisor has threads"
for i in 1 2 3; do
	echo "before death $i" >"$M/f$i"
	sync "$M/f$i"
	t0=$(date +%s%N)
	kill -9 "$d"
	d=$(back "$d") || fail "not mounted again within $WITHIN s"
	ms=$((($(date +%s%N) - t0) / 1000000))
	echo "death $i: back after $ms ms"
	[ $ms -lt 2000 ] || grep -vE 'node-[0-9]' "$HOLDFAST_HOME/v/log" | tail -n 8
	eq "$(supervisor "$d")" "$s"
	for j in $(seq $i); do eq "$(cat "$M/f$j")" "before death $j"; done
done
grep -q "signal 9: starting another" "$HOLDFAST_HOME/v/log" || fail "the log does not say why"
# One mount point, not a stack of dead ones below it.
eq "$(awk -v m="$M" '$5 == m' /proc/self/mountinfo | wc -l)" 1
# A wanted end ends both, at once mountable again.
ok hf umount "$M"
runs $s && fail "the supervisor outlived umount"
mount_volume --supervise
d=$(daemon_pid) s=$(supervisor "$(daemon_pid)")
ok hf umount "$M" --now
runs $s && fail "the supervisor outlived umount --now"
# Signals: each of the two.
mount_volume --supervise
d=$(daemon_pid) s=$(supervisor "$(daemon_pid)")
kill -TERM "$s"
gone "$d" 60 && gone "$s" 60 || fail "SIGTERM to the supervisor does not end the mount"
mountpoint -q "$M" && fail "still mounted after SIGTERM"
# Stopped: --now kills it, and it does not come back.
mount_volume --supervise
d=$(daemon_pid) s=$(supervisor "$(daemon_pid)")
kill -STOP "$d"
ok hf umount "$M" --now
runs $d && fail "the stopped daemon is still there"
runs $s && fail "its supervisor is still there"
mountpoint -q "$M" && fail "still mounted"
# A first start that fails is the command's failure, and leaves nobody behind.
mv "$HOLDFAST_HOME/v/meta.db" "$W/meta.db"
mkdir "$HOLDFAST_HOME/v/meta.db"
no 1 hf mount v "$M" --supervise
[ -z "$(pgrep -f "mount v $M" | grep -v "^$$\$")" ] || fail "a supervisor of nothing"
rmdir "$HOLDFAST_HOME/v/meta.db"
mv "$W/meta.db" "$HOLDFAST_HOME/v/meta.db"
# Deaths in a row: given up, said so, and the dead mount point is left for the next mount.
mount_volume --supervise
s=$(supervisor "$(daemon_pid)")
d=0
for i in 1 2 3 4 5 6; do
	d=$(back $d) || fail "death $i"
	kill -9 "$d"
done
gone "$s" "$WITHIN" || fail "it did not give up"
grep -q "giving up" "$HOLDFAST_HOME/v/log" || fail "giving up is not in the log"
ls "$M" 2>"$W/err" && fail "programs see an empty directory in the place of the drive"
says "endpoint is not connected"
mount_volume
eq "$(cat "$M/f3")" "before death 3"
umount_volume
# In the foreground, as a unit of systemd runs it.
"$HOLDFAST" mount v "$M" -f --supervise >"$W/fg" 2>&1 &
s=$!
d=$(back 0) || fail "no mount in the foreground"
kill -9 "$d"
d=$(back "$d") || fail "not mounted again (foreground)"
ok hf umount "$M"
wait $s || { cat "$W/fg"; fail "status $? of the supervisor in the foreground"; }
ok hf fsck v --nodes --deep >/dev/null
exit 0
