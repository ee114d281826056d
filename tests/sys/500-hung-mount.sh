# SPDX-License-Identifier: GPL-3.0-or-later
# No program and no command hangs with the drive.  All servers stop answering in the middle of a
# read (SIGSTOP; packets that vanish): what is here goes on, who waits can be killed at once, and
# umount --now ends it, whoever uses it.  The daemon itself stops, or dies: umount --now ends
# that too, a dead mount point is cleared by the next mount, and what was written is there.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
have python3
LONG=20 # seconds; a wait for nodes that nobody ends takes 30
six_servers
names=(n1 n2 n3 n4 n5 n6)
for n in "${names[@]}"; do proxy $n; done
paused=()
go() { local n; for n in "${paused[@]}"; do server_resume $n 2>/dev/null; done; paused=(); }
trap 'rc=$?; go; (exit $rc); cleanup' EXIT
hang() { # how
	local n
	for n in "${names[@]}"; do
		if [ "$1" = stop ]; then server_pause $n; paused+=("$n"); else fault $n '{"do":"hole"}'; fi
	done
}
unhang() { go; local n; for n in "${names[@]}"; do fault $n; done; }
# The first thread may have ended before the others, which still have all that is open.
dead() { [ "$(awk '/^State:/ { z = $2 == "Z" } /^Threads:/ && $2 > 1 { z = 0 } END { print NR && !z }' "/proc/$1/status" 2>/dev/null)" != 1 ]; }
# It must still be waiting; then it ends soon after the signal.
ends() { # what signal pid
	local t0 i
	dead "$3" && fail "$1: it did not wait: $(cat "$W/out-$1" 2>/dev/null)"
	t0=$(date +%s%N)
	kill "-$2" "$3"
	for i in $(seq $((LONG * 50))); do
		dead "$3" && { echo "$1: SIG$2 ended it in $((($(date +%s%N) - t0) / 1000000)) ms"; return; }
		sleep 0.02
	done
	grep -E '^(Name|State)' "/proc/$3/status"
	fail "$1: not ended by SIG$2 within $LONG s"
}
within() { # seconds command...
	local s=$1 t0=$SECONDS rc
	shift
	timeout 200 "$@"
	rc=$?
	echo "$((SECONDS - t0)) s: ${*:2}"
	[ $((SECONDS - t0)) -le "$s" ] || fail "took $((SECONDS - t0)) s: $*"
	return $rc
}
# A page of a mapped file, with read-ahead off: one that the kernel itself waits for.
cat >"$W/fault.py" <<'P'
import mmap, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
fd = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
m.madvise(mmap.MADV_RANDOM)
open(sys.argv[3], "w").close()
print(m[int(sys.argv[2])])
P
new_drive "${names[@]}"
mount_volume
head -c 24000000 /dev/urandom >"$W/far"
# More than a commit carries itself, and in a segment of their own.
for i in 1 2 3 4 5 6; do head -c 30000 /dev/urandom >"$M/s$i"; done
ok hf sync v
head -c 12000000 "$W/far" >"$M/far2"
cp "$W/far" "$M/far"
mkdir "$M/dir"
ok hf sync v --protected
for how in stop hole; do
	fresh -o download_limit=1500000,interval=3600
	seq 1000 >"$M/here"
	env --default-signal=INT cat "$M/far" >"$W/out-cat" & cat=$!
	until_status '[.nodes[] | select((.downloaded // 0) > 500000)] | length >= 1'
	hang $how
	dead $cat && fail "$how: it was read before anything happened"
	python3 "$W/fault.py" "$M/far2" 7000000 "$W/ready1-$how" >"$W/out-fault" & fault=$!
	env --default-signal=INT python3 "$W/fault.py" "$M/far2" 3000000 "$W/ready2-$how" >"$W/out-fault2" & fault2=$!
	# A small file is changed: what it was must come first.
	printf x | dd of="$M/s1" conv=notrunc bs=1 seek=4000 status=none & write=$!
	env --default-signal=INT truncate -s 4000 "$M/s2" & trunc=$!
	cat "$M/s3" >/dev/null & small=$!
	for i in $(seq 500); do
		[ -e "$W/ready1-$how" ] && [ -e "$W/ready2-$how" ] && break
		sleep 0.02
	done
	sleep 1
	# What is here, and all names, in the meantime.
	within $LONG sh -c "ls -lR $M >/dev/null && stat $M/far >/dev/null && seq 1000 | cmp - $M/here &&
		echo while-$how >$M/note-$how && mkdir $M/dir/$how && mv $M/note-$how $M/dir/ && sync $M/dir/note-$how" ||
		fail "$how: what is here does not go on"
	ends cat INT $cat
	ends fault KILL $fault
	ends fault2 INT $fault2
	ends write KILL $write
	ends truncate INT $trunc
	ends small TERM $small
	wait $cat $fault $fault2 $write $trunc $small 2>/dev/null
	# In use, by a reader that waits and by one that does nothing.
	cat "$M/s4" >"$W/out-now" 2>"$W/err-now" & now=$!
	(cd "$M/dir" && exec sleep 100) & idle=$!
	sleep 0.5
	no 1 hf umount "$M"
	within 60 "$HOLDFAST" umount "$M" --now || fail "$how: umount --now"
	mountpoint -q "$M" && fail "$how: still mounted"
	wait $now && fail "$how: bytes out of nowhere"
	kill $idle
	wait $idle 2>/dev/null
	# Without a node it comes up again, with what was written.
	within 60 "$HOLDFAST" mount v "$M" || fail "$how: no mount"
	eq "$(cat "$M/dir/note-$how")" "while-$how"
	eq "$(stat -c %s "$M/s2")" 30000 "a change that was interrupted is not there"
	unhang
	until_status '[.nodes[] | select(.state != "up" and .state != "slow")] == []' 400
	cmp "$M/far" "$W/far" || fail "$how: wrong bytes"
	ok hf sync v --protected
done
# The daemon is stopped, with a program in the middle of a request, and with one that uses it.
d=$(daemon_pid)
(cd "$M/dir" && exec sleep 100) & idle=$!
kill -STOP "$d"
cat "$M/s5" >/dev/null 2>&1 & stuck=$!
python3 "$W/fault.py" "$M/far" 0 "$W/ready" >"$W/out-stuck" 2>&1 & stuck2=$!
sleep 0.5
no 1 timeout 60 "$HOLDFAST" umount "$M"
says "kill -CONT"
no 1 timeout 60 "$HOLDFAST" mount v "$M"
within 60 "$HOLDFAST" umount "$M" --now || fail "umount --now of a stopped daemon"
mountpoint -q "$M" && fail "still mounted"
dead "$d" || fail "the stopped daemon is still there"
wait $stuck $stuck2 2>/dev/null
kill $idle
wait $idle 2>/dev/null
# It dies.  --now clears what is left; so does the next mount.
mount_volume
echo "not published" >"$M/kept"
sync "$M/kept"
d=$(daemon_pid)
kill -9 "$d"
for i in $(seq 400); do dead "$d" && break; sleep 0.05; done
ls "$M" 2>"$W/err" && fail "a dead mount answers"
says "endpoint is not connected"
within 30 "$HOLDFAST" umount "$M" --now || fail "umount --now of a dead mount"
mountpoint -q "$M" && fail "still mounted"
mount_volume
eq "$(cat "$M/kept")" "not published"
kill -9 "$(daemon_pid)"
within 60 "$HOLDFAST" mount v "$M" || fail "a dead mount point is not cleared"
eq "$(cat "$M/kept")" "not published"
eq "$(awk -v m="$M" '$5 == m' /proc/self/mountinfo | wc -l)" 1
umount_volume
ok hf fsck v --nodes --deep >/dev/null
exit 0
