# SPDX-License-Identifier: GPL-3.0-or-later
# PostgreSQL keeps its cluster on the drive: kill -9 of the server, of the drive below it, and
# of the machine.  What it acknowledged is there after the first two; a recovery from the nodes
# has a state that the database really had.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip "root is needed to be the user postgres"
have runuser
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$bin/initdb" ] && id postgres >/dev/null 2>&1 || skip "PostgreSQL is not installed"
chmod 755 "$W"
mkdir "$W/sock" && chown postgres "$W/sock"
as() { (cd / && exec runuser -u postgres -- "$@"); }
start() { # data directory
	as "$bin/pg_ctl" -D "$1" -w -t 120 -s -l "$W/sock/log" -o "-k $W/sock -c listen_addresses=''" start ||
		{ tail -n 20 "$W/sock/log"; fail "PostgreSQL does not start"; }
}
sql() { as "$bin/psql" -h "$W/sock" -d postgres -Atq -v ON_ERROR_STOP=1 "$@"; }
# The pages, the indexes, and what every transaction of pgbench keeps equal.
sound() {
	as "$bin/pg_amcheck" -h "$W/sock" -d postgres --install-missing --heapallindexed >"$W/amcheck" 2>&1 ||
		{ cat "$W/amcheck"; fail "$1: damaged"; }
	eq "$(sql -c "SELECT count(DISTINCT s) FROM (SELECT sum(abalance) FROM pgbench_accounts UNION ALL
		SELECT sum(bbalance) FROM pgbench_branches UNION ALL SELECT sum(tbalance) FROM pgbench_tellers
		UNION ALL SELECT coalesce(sum(delta), 0) FROM pgbench_history) x(s)")" 1 "$1: sums"
}
# Transactions (-n: what the last ones left is kept), and one writer who notes what was
# acknowledged, by a rename so that nobody reads half of it, until the server is gone.
load() {
	as "$bin/pgbench" -h "$W/sock" -n -c 3 -T 100 postgres >/dev/null 2>&1 & bench=$!
	n=$(sql -c "SELECT coalesce(max(n), 0) FROM ledger") || fail "no ledger"
	(while sql -c "INSERT INTO ledger VALUES ($n + 1)" >/dev/null 2>&1; do n=$((n + 1)); echo "$n" >"$W/acked.new"; mv "$W/acked.new" "$W/acked"; done) & writer=$!
}
acked() {
	local n
	for _ in $(seq 600); do
		n=$(cat "$W/acked" 2>/dev/null)
		[ "${n:-0}" -ge "$1" ] && return
		sleep 0.1
	done
	fail "the server does not get on"
}
postmaster() { head -n 1 "$M/pg/postmaster.pid"; }
kill_server() { # its process
	local p all
	# Stopped, so that it starts no other that outlives it.
	kill -STOP "$1"
	all="$1 $(pgrep -P "$1" | tr '\n' ' ')"
	for p in $all; do kill -9 "$p" 2>/dev/null; done
	for p in $all; do
		for _ in $(seq 600); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
	done
	wait $bench $writer
}
new_volume
mount_volume -o interval=1
install -d -o postgres -m 700 "$M/pg"
as "$bin/initdb" -D "$M/pg" -A trust --no-locale -E UTF8 >"$W/initdb" 2>&1 || { cat "$W/initdb"; fail initdb; }
start "$M/pg"
sql -c "CREATE TABLE ledger (n int PRIMARY KEY)" || fail "CREATE TABLE"
as "$bin/pgbench" -h "$W/sock" -i -s 1 -q postgres >/dev/null 2>&1 || fail "pgbench -i"

load
acked 20
kill_server "$(postmaster)"
start "$M/pg"
[ "$(sql -c 'SELECT max(n) FROM ledger')" -ge "$(cat "$W/acked")" ] || fail "an acknowledged row is gone"
sound "kill -9 of the server"

load
acked $(($(cat "$W/acked") + 20))
p=$(postmaster)
kill_volume
kill_server "$p"
mount_volume -o interval=1
start "$M/pg"
[ "$(sql -c 'SELECT max(n) FROM ledger')" -ge "$(cat "$W/acked")" ] || fail "an acknowledged row is gone with the drive"
sound "kill -9 of the drive"

# The machine is gone, in the middle of it.
load
acked $(($(cat "$W/acked") + 20))
published=$(cat "$W/acked")
ok hf sync v
acked $((published + 10))
p=$(postmaster)
kill_volume
kill_server "$p"
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
start "$M/pg"
[ "$(sql -c 'SELECT max(n) FROM ledger')" -ge "$published" ] || fail "older than what was published"
sound "recovered"
as "$bin/pg_ctl" -D "$M/pg" -s -m fast -w -t 120 stop || fail "the server does not stop"
umount_volume
ok hf fsck v --nodes
