# SPDX-License-Identifier: GPL-3.0-or-later
# No node in reach, because nobody listens and because packets vanish: the mount comes up and
# works, what is here can be read, writes are kept, and a read of what is nowhere near fails with
# a clear error in bounded time.  All is published when the nodes return.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
six_servers
names=(n1 n2 n3 n4 n5 n6)
for n in "${names[@]}"; do proxy $n; done
new_drive "${names[@]}"
mount_volume
make_tree "$M/t" "$SEED"
want
ok hf sync v --protected
head -c 30000000 /dev/urandom >"$W/far"

all() { local n; for n in "${names[@]}"; do fault $n "$@"; done; }
within() { # seconds command...
	local s=$1 t0=$SECONDS
	shift
	timeout 200 "$@"
	local rc=$?
	[ $((SECONDS - t0)) -le "$s" ] || fail "took $((SECONDS - t0)) s: $*"
	return $rc
}
for how in refuse hole; do
	# What is not in the cache: a fresh home has names only.
	cp "$W/far" "$M/far-$how"
	ok hf sync v --protected
	want
	fresh
	find "$M/t" -type f ! -name sparse -exec cat {} + >/dev/null 2>&1
	ok hf umount "$M"
	all "{\"do\":\"$how\"}"
	within 30 "$HOLDFAST" mount v "$M" || fail "$how: no mount"
	(cd "$M" && ls -lR >/dev/null) || fail "$how: names"
	within 90 cat "$M/far-$how" >/dev/null 2>"$W/err" && fail "$how: bytes out of nowhere"
	grep -qE 'timed out|Input/output error|No data|unreachable|Host is down' "$W/err" ||
		{ cat "$W/err"; fail "$how: no clear error"; }
	cat "$W/err"
	make_tree "$M/$how" 7
	echo "written while $how" >"$M/note-$how"
	eq "$(cat "$M/note-$how")" "written while $how"
	mv "$M/t" "$M/t2" && mv "$M/t2" "$M/t" || fail "$how: rename"
	no 1 hf sync v --timeout 1
	until_status '[.nodes[] | select(.state == "up" or (.error // "") == "")] == []' 400
	hf status v --json | jq -e '.protected | not' >/dev/null || fail "$how: protected without a node"
	# The program goes away and comes back, still without a node.
	within 60 "$HOLDFAST" umount "$M" --now || fail "$how: umount"
	within 30 "$HOLDFAST" mount v "$M" || fail "$how: second mount"
	eq "$(cat "$M/note-$how")" "written while $how"
	all
	until_status '.unpublished.files == 0 and .protected' 400
	want
	cmp "$M/far-$how" "$W/far" || fail "$how: wrong bytes"
	fresh
	same "$how: recovered"
done
exit 0
