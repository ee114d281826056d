# SPDX-License-Identifier: GPL-3.0-or-later
# What 600 and 610 share: a scripted session on a drive, mounted with tools/nth.so, in which one
# call fails or is the last.  Its ledger (tools/session) is compared with what is there after it,
# and after a mount without faults, which must be as good as new.
# Sourced; the test then uses prepare, counted, one and the rest.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
have jq
NTH_SO=$B/tools/nth.so
[ -e "$NTH_SO" ] || fail "no $NTH_SO: run make tools first"
nm -D "$HOLDFAST" 2>/dev/null | grep -q '__[at]san_init' && skip "a sanitizer and nth.so both want to be first"
# Garbage is collected while the session lasts.
export HOLDFAST_PACE=grace=1,stray=1000,compact=100
OPTIONS=interval=1,cache_size=200K
WITHIN=${WITHIN:-20} # seconds that a drive with faults has for what it may never do
LIMIT=${LIMIT:-120} # what no step of a session takes, however slow the machine is

# A drive with files that are published and were given up here, and segments that lack a shard.
prepare() {
	new_volume
	mount_volume -o "$OPTIONS"
	ok "$TOOLS/session" old "$M" "$W/ledger"
	ok hf sync v --protected >/dev/null
	mv "$W/n/2" "$W/away"
	head -c 100000 /dev/urandom >"$M/other" || fail "writing"
	ok hf sync v >/dev/null
	umount_volume
	rm -rf "$W/n/2"
	mv "$W/away" "$W/n/2"
	ok "$TOOLS/session" settled - "$W/ledger"
	mkdir "$W/base"
	cp -a "$W/home" "$W/n" "$W/ledger" "$W/base/"
}

# step CMD...: its output is in $W/step; $rc is its status.  Whatever fails, nothing hangs.
step() {
	local say=$*
	[ "$1" = hf ] && set -- "$HOLDFAST" "${@:2}"
	timeout -k 5 "$LIMIT" "$@" >"$W/step" 2>&1 </dev/null
	rc=$?
	[ $rc -ne 124 ] && [ $rc -ne 137 ] || wrong "hangs: $say"
	echo "$say : $rc, $SECONDS s" >>"$W/trace"
	sed 's/^/    /' "$W/step" >>"$W/trace"
}
wrong() {
	echo "--- case $case"
	cat "$W/report" "$W/trace" "$W/daemon" 2>/dev/null | cut -c1-600 | tail -n 80
	fail "case '$case': $*"
}

# begin NTH_...=...: mounts the drive of `prepare` with those; false when it could not be mounted.
begin() {
	rm -rf "${W:?}/home" "$W/n" "$W/ledger" "$W/trace" "$W/report" "$W/page" "$W/daemon"
	cp -a "$W/base/." "$W/"
	# In a shell of its own, which has nobody to tell that it was killed.
	(
		env "$@" NTH_PAGE="$W/page" NTH_REPORT="$W/report" LD_PRELOAD="$NTH_SO" \
			"$HOLDFAST" mount -f v "$M" -o "$OPTIONS" >"$W/daemon" 2>&1 </dev/null
		exit $?
	) 2>/dev/null &
	daemon=$!
	for _ in $(seq $((LIMIT * 50))); do
		grep -q "is mounted on" "$W/daemon" 2>/dev/null && return 0
		kill -0 $daemon 2>/dev/null || return 1
		sleep 0.02
	done
	wrong "the mount is neither ready nor at its end"
}
alive() { kill -0 $daemon 2>/dev/null; }

# A stage: 0 all was done, else something failed; whatever is wrong in it ends the test.
stage() {
	step "$TOOLS/session" "$1" "$M" "$W/ledger"
	case $rc in
	0) return 0 ;;
	4) ;;
	5) told=1 ;;
	6) ;;
	*) wrong "$(cat "$W/step")" ;;
	esac
	failures=1
	return 1
}

# Waits until what nothing needs is gone from the nodes; a drive with faults may not get there.
collect() {
	for _ in $(seq "${1:-50}"); do
		alive || return 1
		step hf status v --json
		[ $rc -eq 0 ] || return 1
		jq -e '.garbage.segments == 0' "$W/step" >/dev/null && return 0
		sleep 0.1
	done
	return 1
}

# whole NTH_...=...: the session without a fault; all is done, however long it takes, and what
# nothing needs is gone from the nodes.
whole() {
	WITHIN=$((LIMIT - 20)) COLLECT=$((LIMIT * 10)) session "$@"
	eq "$failures $status $(faults) $collected" "0 0 0 0" "a session without faults: $(cat "$W/trace")"
}

# The session; then $status is that of the daemon, $failures whether the program saw any.
session() {
	failures=0 told=0 status=0 published=1 collected=1 refusal='' shot=0
	if begin "$@"; then
		stage first
		alive && step hf sync v --timeout "$WITHIN"
		alive && stage second
		alive && step hf node replace v node-6 "dir:$W/n/7" --no-wait
		alive && step hf sync v --protected --timeout "$WITHIN"
		alive && stage third
		alive && step hf sync v --timeout "$WITHIN"
		published=$rc
		collected=1
		[ $published -eq 0 ] && collect "${COLLECT:-}" && collected=0
		if alive && [ $told -eq 1 ]; then
			step hf status v --json
			[ $rc -ne 0 ] || jq -e '.warning != null' "$W/step" >/dev/null ||
				wrong "an fsync failed and status does not say why"
			step hf sync v
			[ $rc -ne 0 ] || wrong "an fsync failed, and all is said to be published"
			# shellcheck disable=SC2034 # of 600
			refusal=$(cat "$W/step")
			! touch "$M/after" 2>/dev/null || wrong "an fsync failed and changes are taken"
		fi
		[ $published -eq 0 ] && alive && step hf umount "$M"
		alive && step hf umount --now "$M" && [ $rc -ne 0 ] &&
			grep -q " $M fuse" /proc/self/mounts && wrong "umount --now does not unmount"
		# Who cannot answer for want of memory has to be killed by it.
		# shellcheck disable=SC2034 # of 600
		grep -q "did not answer and was killed" "$W/step" && shot=1
	fi
	timeout "$LIMIT" tail --pid=$daemon -f /dev/null || wrong "the daemon does not end"
	wait $daemon
	status=$?
	umount -l "$M" 2>/dev/null || fusermount3 -uz "$M" 2>/dev/null
	echo "the daemon's status: $status" >>"$W/trace"
	[ $status -ne 0 ] || ok "$TOOLS/session" settled - "$W/ledger"
}

# Everything that was acknowledged is there, and the drive is as good as new; with an argument (of
# those who source this) also what a recovery sees.
# shellcheck disable=SC2120
verify() {
	step hf mount v "$M" -o "$OPTIONS"
	[ $rc -eq 0 ] || wrong "it cannot be mounted any more: $(cat "$W/step")"
	step "$TOOLS/session" verify "$M" "$W/ledger"
	[ $rc -eq 0 ] || wrong "$(cat "$W/step")"
	ok touch "$M/again"
	step hf sync v --protected
	[ $rc -eq 0 ] || wrong "it is not published any more: $(cat "$W/step")"
	if [ "${1:-}" ]; then tree "$M" >"$W/want"; fi
	step hf umount "$M"
	[ $rc -eq 0 ] || wrong "it is not unmounted: $(cat "$W/step")"
	step hf fsck v --nodes
	[ $rc -eq 0 ] || wrong "fsck: $(cat "$W/step")"
	[ "${1:-}" ] || return 0
	# What others see of it.
	rm -rf "$W/home2"
	(
		export HOLDFAST_HOME=$W/home2
		step hf recover "$W/kit.txt" v
		[ $rc -eq 0 ] || wrong "recover: $(cat "$W/step")"
		step hf mount v "$M"
		[ $rc -eq 0 ] || wrong "recovered, it cannot be mounted: $(cat "$W/step")"
		tree "$M" >"$W/got"
		step hf umount "$M"
	) || exit 1
	diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; wrong "recovered, the tree differs"; }
}

# A negative control: what `verify` must not pass.  Its mount, which cannot publish all it should,
# must be gone before its nodes become those of another case.
refuted() {
	(verify) >"$W/control" 2>&1 && fail "$*"
	kill_volume
}

# How many calls counted; how many were made to fail.
counted() { od -An -t u8 -j 0 -N 8 "$W/page" | tr -d ' '; }
faults() { od -An -t u8 -j 8 -N 8 "$W/page" | tr -d ' '; }
# kind_count N: calls of the kind of that number (the order is that of tools/preload/nth.c).
kind_count() { od -An -t u8 -j $((16 + 8 * $1)) -N 8 "$W/page" | tr -d ' '; }
KINDS=(write read sync open rename trunc unlink falloc mkdir stat mem)
# draw N: a number below N, in $drawn (a subshell would have a seed of its own).
draw() { drawn=$(((RANDOM * 32768 + RANDOM) % $1)); }
