# SPDX-License-Identifier: GPL-3.0-or-later
# The fault proxy does what the tests that use it think it does; asked with curl, without a
# drive.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/servers.sh"
server n nginx
proxy n
head -c 200000 /dev/urandom >"$W/f"
# ask PATH [curl's options]: sets status (000: no answer) and rc, the body goes to $W/g; it takes
# $most seconds, then curl says 28
most=60
ask() {
	local path=$1
	shift
	rm -f "$W/g"
	status=$(curl -qs --noproxy '*' -m "$most" -u "node:${srv_pass[n]}" -o "$W/g" -w '%{http_code}' -H 'Expect:' "$@" \
		"http://127.0.0.1:${srv_proxy[n]}/$path")
	rc=$?
}
put() { ask "$1" -T "$W/f"; }
gave() { # status rc
	[ "$status $rc" = "$1 $2" ] || fail "$how: status $status, curl $rc; not $1, $2"
}
rule() { how=$1; fault n "$1"; }
there() { [ -e "$(server_data n)/$1" ] && cmp -s "$(server_data n)/$1" "$W/f"; }

how=honest
put f; gave 201 0
ask f -r 100-199; gave 206 0
cmp "$W/g" <(head -c 200 "$W/f" | tail -c 100) || fail "a range"
list() { ask '' -X PROPFIND -H 'Depth: 1'; grep -o 'href>[^<]*' "$W/g" | wc -l; }
before=$(list)
rule '{"do":"status","code":503,"headers":{"Retry-After":"7"},"body":"no","match":"^PUT"}'
put s; gave 503 0; there s && fail "passed on"
ask f; gave 200 0
rule '{"do":"reset","count":1}'
ask f; gave 000 56
ask f; gave 200 0
rule '{"do":"reset","bytes":1000}'
ask f; [ $rc -ne 0 ] && [ "$(stat -c %s "$W/g")" -le 1000 ] || fail "$how"
rule '{"do":"lostack"}'
put lost; [ $rc -ne 0 ] && there lost || fail "$how"
rule '{"do":"zombie","ms":4000,"match":"^PUT"}'
put zombie; gave 503 0; there zombie && fail "at once"
for i in $(seq 1200); do there zombie && break; sleep 0.05; done
there zombie || fail "$how: never done"
rule '{"do":"dup","match":"^PUT"}'
put dup; gave 204 0
rule '{"do":"cutup","bytes":5000}'
put cutup; [ $rc -ne 0 ] || fail "$how"
there cutup && fail "$how: whole"
rule '{"do":"clip"}'
put clip; gave 201 0; eq "$(stat -c %s "$(server_data n)/clip")" 100000 "$how"
rule '{"do":"cut"}'
ask f; gave 200 18
rule '{"do":"cut","length":false}'
ask f; gave 200 0; eq "$(stat -c %s "$W/g")" 100000 "$how"
rule '{"do":"stall","bytes":50}'
most=4 ask f; gave 200 28
rule '{"do":"corrupt"}'
ask f; gave 200 0; eq "$(cmp -l "$W/f" "$W/g" | wc -l)" 1 "$how"
rule '{"do":"garbage"}'
ask f; gave 000 1
rule '{"do":"hole"}'
most=2 put hole; gave 000 28; there hole && fail "$how: passed on"
rule '{"do":"mute"}'
most=2 put mute; gave 000 28
for i in $(seq 1200); do there mute && break; sleep 0.05; done
there mute || fail "$how: not passed on"
rule '{"do":"whole"}'
ask f -r 0-9; gave 200 0
rule '{"do":"gzip"}'
ask f; gave 200 0; gzip -dc <"$W/g" | cmp - "$W/f" || fail "$how"
rule '{"do":"slow","rate":20000}'
most=4 ask f; gave 200 28
rule '{"do":"late","ms":5000}'
most=2 ask f; gave 000 28
rule '{"do":"latency","ms":5000}'
most=2 put latency; gave 000 28
rule '{"do":"refuse"}'
ask f; gave 000 7
rule '{"do":"stale"}'
put new; gave 201 0
ask new; gave 404 0
ask f; gave 200 0
eq "$(list)" "$before" "$how"
how=honest; fault n
ask new; gave 200 0
[ "$(list)" -gt "$before" ] || fail "an old listing"
forget_requests
put f; ask f; ask f
eq "$(requests n) $(requests n 'PUT /f') $(requests n 'GET .*')" "3 1 2" "requests counted"
(fault n '{"what":"nothing"}') >/dev/null && fail "takes any rule"

# The servers themselves: hung, killed, another password, the same data afterwards.
fault n
server_pause n
most=2 ask f; gave 000 28
server_resume n
server_crash n
ask f; gave 000 52
server_start n
ask f; gave 200 0
server_password n other
ask f; gave 401 0
exit 0
