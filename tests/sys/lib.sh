# SPDX-License-Identifier: GPL-3.0-or-later
# What every system test needs: a home of its own, a passphrase, mounts that are cleared away.
# Sourced; the test then uses hf (the program), new_volume, mount_volume, the directory $W.
set -u -o pipefail
LC_ALL=C
export LC_ALL
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
B=${B:-$ROOT/build}
HOLDFAST=${HOLDFAST:-$B/holdfast}
TOOLS=$B/tools
W=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-test.XXXXXX")
export HOLDFAST_HOME=$W/home HOLDFAST_PASSPHRASE_FILE=$W/pass HOLDFAST_ARGON_MIB=8
echo "correct horse battery staple" >"$W/pass"
chmod 600 "$W/pass"
mkdir -p "$W/m"
M=$W/m
SEED=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
RANDOM=$((SEED % 32768))
exec {said}>&1
echo "seed $SEED (SEED=$SEED repeats it)"

skip() {
	echo "skipped: $*"
	exit 77
}
# Said by cleanup: here the output may be going elsewhere.
fail() {
	echo "FAILED at line ${BASH_LINENO[-2]}: $*" >>"$W/failed"
	exit 1
}
hf() { "$HOLDFAST" "$@"; }
have() { command -v "$1" >/dev/null || skip "$1 is not installed"; }

cleanup() {
	local rc=$? d p
	exec >&$said 2>&1
	# timeout signals the whole group a second time: neither this nor its pgrep may end of it.
	trap '' TERM INT
	cd /
	for d in $(awk -v w="$W" 'index($5, w) == 1 { print $5 }' /proc/self/mountinfo | sort -r); do
		umount -l "$d" 2>/dev/null || fusermount3 -uz "$d" 2>/dev/null
	done
	for p in $(pgrep -f "$W" 2>/dev/null); do
		[ "$p" != $$ ] && [ "$p" != "$BASHPID" ] && kill -9 "$p" 2>/dev/null
	done
	if [ $rc -ne 0 ] && [ $rc -ne 77 ]; then
		cat "$W/failed" 2>/dev/null
		for d in "$W"/home*/*/log; do
			[ -e "$d" ] && echo "--- $d" && tail -n 30 "$d"
		done
	fi
	[ "${KEEP:-}" ] && echo "kept $W" || rm -rf "$W"
	exit $rc
}
trap cleanup EXIT
trap 'exit 143' TERM INT
[ -e /dev/fuse ] || skip "no /dev/fuse"
[ -x "$HOLDFAST" ] || fail "no $HOLDFAST: run make first"

# ok CMD...: must succeed.  no STATUS CMD...: must end with that status and one line of error.
ok() { "$@" || fail "status $?: $*"; }
no() {
	local want=$1 rc
	shift
	"$@" >"$W/out" 2>"$W/err" </dev/null
	rc=$?
	[ $rc -eq "$want" ] || { cat "$W/out" "$W/err"; fail "status $rc, not $want: $*"; }
	[ "$(grep -c . "$W/err")" -eq 1 ] || { cat "$W/err"; fail "not one line of error: $*"; }
}
says() { grep -q -i -- "$1" "$W/err" || { cat "$W/err"; fail "the error does not say '$1'"; }; }
eq() { [ "$1" = "$2" ] || fail "'$1' is not '$2'${3:+: $3}"; }

# new_volume [create's arguments]: volume v on six directories $W/n/1..6, survive 2.
new_volume() {
	local i
	mkdir -p "$W/n"
	local urls=()
	for i in 1 2 3 4 5 6; do urls+=(--node "dir:$W/n/$i"); done
	ok hf create v "${urls[@]}" --survive 2 --kit "$W/kit.txt" "$@" >"$W/create.out"
}
mount_volume() { ok hf mount v "$M" "$@"; }
umount_volume() { ok hf umount "$M"; }
daemon_pid() { hf status v --json | jq -r .pid; }
# The volume's daemon dies at once, the mount point is cleared.
kill_volume() {
	local p
	p=$(daemon_pid)
	kill -9 "$p" || fail "no daemon"
	while kill -0 "$p" 2>/dev/null; do sleep 0.02; done
	umount -l "$M" 2>/dev/null || fusermount3 -uz "$M"
}
tree() { (cd "$1" && "$TOOLS/treesum" .) || fail "reading the tree $1"; }
# A tree with everything a tree can hold; about 400 files.  A third word, dense: without 5 TiB of hole.
make_tree() { ok "$TOOLS/mktree" "$1" "${2:-1}" "${@:3}"; }
# Waits until a jq expression over status --json is true.  A node that was away for a while is
# looked at once a minute.
until_status() {
	local i
	for i in $(seq "${2:-900}"); do
		hf status v --json 2>/dev/null | jq -e "$1" >/dev/null && return 0
		sleep 0.2
	done
	hf status v --json
	fail "never: $1"
}

# sqlite_writers MODE N: three at once insert N rows each into a database in the current directory,
# in this journal mode; it is whole afterwards, and all rows are there.
sqlite_writers() {
	local mode=$1 n=$2 w i
	sqlite3 "s-$mode.db" "PRAGMA journal_mode=$mode; CREATE TABLE t(w, i, x);" >/dev/null || fail sqlite
	for w in 1 2 3; do
		# Of the modes WAL alone is remembered by the database.
		(for i in $(seq "$n"); do echo "PRAGMA busy_timeout=60000; PRAGMA journal_mode=$mode; INSERT INTO t VALUES($w, $i, randomblob(2000));"; done |
			sqlite3 "s-$mode.db" >/dev/null || echo failed >"$W/sqlite-failed") &
	done
	wait
	[ -e "$W/sqlite-failed" ] && fail "a SQLite writer failed ($mode)"
	eq "$(sqlite3 "s-$mode.db" 'PRAGMA integrity_check')" ok
	eq "$(sqlite3 "s-$mode.db" 'SELECT count(*) FROM t')" $((3 * n)) "$mode"
}
