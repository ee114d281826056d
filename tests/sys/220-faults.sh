# SPDX-License-Identifier: GPL-3.0-or-later
# Every way in which a server or the way to it fails, on two of six nodes at once.  While it
# lasts the drive publishes, and an empty machine recovers and reads every byte; the nodes are
# named, with a state and a sentence, and no others are; when it is over the drive protects
# itself again without being told.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
six_servers
names=(n1 n2 n3 n4 n5 n6)
for n in "${names[@]}"; do proxy $n; done
new_drive "${names[@]}"
mount_volume
make_tree "$M/t" "$SEED"
ok hf sync v --protected
round=0

# kind NAME STATES SENTENCE [RULE]: regular expressions for what the status has to say; states
# "": it harms nobody, and nobody is to be blamed.
declare -A states sentence rule
kind() { states[$1]=$2 sentence[$1]=$3 rule[$1]=${4:-}; }
kind refuse    'down' 'no connection' '{"do":"refuse"}'
kind crash     'down' 'connection'
kind hang      'down' 'in time'
kind hole      'down' 'in time' '{"do":"hole"}'
kind mute      'down' 'in time' '{"do":"mute"}'
kind password  'refusing' 'credentials of profile'
kind status429 '[a-z]+' '429' '{"do":"status","code":429,"headers":{"Retry-After":"2"}}'
kind status503 '[a-z]+' '503' '{"do":"status","code":503,"headers":{"Retry-After":"2"}}'
kind redirect  '[a-z]+' 'elsewhere.example' '{"do":"status","code":302,"headers":{"Location":"http://elsewhere.example/"}}'
kind garbage   '[a-z]+' '.' '{"do":"garbage"}'
kind reset     '[a-z]+' '.' '{"do":"reset"}'
kind midbody   '[a-z]+' '.' '{"do":"reset","bytes":100,"match":"^GET"}'
kind stall     '[a-z]+' '.' '{"do":"stall","match":"^GET .*/s/"}'
kind truncated '[a-z]+' '.' '{"do":"cut","match":"^GET"}'
kind shortened '[a-z]+' '.' '{"do":"cut","length":false,"match":"^GET .*/s/"}'
kind cutup     '[a-z]+' '.' '{"do":"cutup","match":"^PUT .*/[sl]/"}'
kind corrupt   'lying' 'not genuine' '{"do":"corrupt","match":"^GET .*/[sl]/"}'
kind stale     '[a-z]+' '.' '{"do":"stale"}'
kind lostack   '[a-z]+' '.' '{"do":"lostack","match":"^PUT"}'
kind zombie    '[a-z]+' '.' '{"do":"zombie","ms":1500,"match":"^PUT"}'
kind whole     '[a-z]+' '.' '{"do":"whole"}'
kind gzip      '[a-z]+' '.' '{"do":"gzip","match":"^GET"}'
kind slow      '[a-z]+' '.' '{"do":"slow","rate":3000}'
kind twice     '' '' '{"do":"dup","match":"^PUT"}'
kind late      '' '' '{"do":"late","ms":150}'
kind sometimes '' '' '{"do":"reset","p":0.1}'

begin() { # kind node
	case $1 in
	hang) server_pause $2 ;;
	crash) server_crash $2 ;;
	password) server_password $2 "another one" ;;
	*) fault $2 "${rule[$1]}" ;;
	esac
}
end() {
	case $1 in
	hang) server_resume $2 ;;
	crash) server_start $2 ;;
	password) server_password $2 "${srv_pass[$2]}" ;;
	*) fault $2 ;;
	esac
}
# What the status says is looked at all the time: a node that answers some requests well is
# trusted again, and its sentence is gone.
watch() {
	: >"$W/statuses"
	while :; do
		HOLDFAST_HOME=$(cat "$W/home-now") hf status v --json >"$W/a-status" 2>/dev/null && jq -c 'select(.mounted)' "$W/a-status" >>"$W/statuses"
		sleep 0.2
	done
}
named() { # node states sentence: prints state and sentence
	jq -r "$(node_jq $1 'select(.error and (.state | test("^('"$2"')$")) and (.error | test("'"$3"'"; "i"))) | .state + ": " + .error')" \
		"$W/statuses" | sort | uniq -c | sort -rn | sed -n '1s/^ *[0-9]* //p'
}
blamed() { # node...: others than these that are not up or slow
	local n not=true
	for n in "$@"; do not+=" and (.url | contains(\":${srv_proxy[$n]}/\") | not)"; done
	jq -r ".nodes[] | select($not) | select(.state != \"up\" and .state != \"slow\" and .error != \"not tried yet\") |
		.name + \" \" + .state + \": \" + .error" "$W/statuses" | sort | uniq -c
}
show() { jq -c '.nodes[] | [.url, .state, .error]' "$W/statuses" | sort | uniq -c; }
# try KIND NODE KIND NODE: both at once.  Prints seconds until all was published, recovered, read,
# and whole again.
try() {
	local a=$1 x=$2 b=$3 y=$4 i t0=$SECONDS t1 t2 t3 said_a said_b
	if [ ${#words[@]} -gt 0 ] && ! [[ " ${words[*]} " == *" $a "* || " ${words[*]} " == *" $b "* ]]; then return; fi
	round=$((round + 1))
	echo "$HOLDFAST_HOME" >"$W/home-now"
	watch & watcher=$!
	begin $a $x
	begin $b $y
	rm -rf "$M/now" && make_tree "$M/now" $((SEED % 1000 + round))
	head -c 3000000 /dev/urandom >"$M/large"
	want
	ok timeout 60 "$HOLDFAST" sync v >/dev/null
	t1=$((SECONDS - t0))
	fresh
	echo "$HOLDFAST_HOME" >"$W/home-now"
	t2=$((SECONDS - t0))
	same "$a and $b, while it lasts"
	echo $round >"$M/again"
	want
	ok timeout 60 "$HOLDFAST" sync v >/dev/null
	t3=$((SECONDS - t0))
	for i in $(seq 50); do
		said_a=${states[$a]:+$(named $x "${states[$a]}" "${sentence[$a]}")}
		said_b=${states[$b]:+$(named $y "${states[$b]}" "${sentence[$b]}")}
		[ "${said_a:-${states[$a]:+no}}" != no ] && [ "${said_b:-${states[$b]:+no}}" != no ] && break
		sleep 0.2
	done
	kill $watcher
	wait $watcher 2>/dev/null
	[ -z "${states[$a]}" ] || [ "$said_a" ] || { show; fail "$a: $x is not named as ${states[$a]}, '${sentence[$a]}'"; }
	[ -z "${states[$b]}" ] || [ "$said_b" ] || { show; fail "$b: $y is not named as ${states[$b]}, '${sentence[$b]}'"; }
	i="${states[$a]:+$x} ${states[$b]:+$y}"
	[ -z "$(blamed $i)" ] || { blamed $i; fail "$a and $b: others are blamed"; }
	end $a $x
	end $b $y
	until_status .protected 400
	same "$a and $b, afterwards"
	echo "$a $x, $b $y: $t1 $t2 $t3 $((SECONDS - t0)) s"
	printf '\t%s\n' "$said_a" "$said_b"
}
words=("$@")

try refuse n1 hang n3
try crash n2 password n5
try hole n2 status429 n4
try mute n3 redirect n5
try garbage n6 status503 n1
try reset n4 corrupt n2
# The rest takes as long again: ALL=1.
[ "${ALL:-}" ] || { ok hf sync v --protected; umount_volume; ok hf fsck v --nodes --deep; exit 0; }
try midbody n5 stale n3
try stall n1 truncated n6
try shortened n2 cutup n4
try lostack n3 zombie n5
try whole n6 gzip n1
try slow n4 corrupt n6
try twice n2 late n3
try sometimes n5 sometimes n1

# What was repaired is really there: of the nodes that never failed last, two go.
ok hf sync v --protected
want
umount_volume
ok hf fsck v --nodes --deep
server_stop n4
server_stop n6
fresh
same "without n4 and n6"
# The control: what the proxies do is not harmless.  Three are too many.
fault n1 '{"do":"corrupt","match":"^GET .*/s/"}'
ok hf umount "$M" --now
export HOLDFAST_HOME=$W/home-x
if hf recover "$W/kit.txt" v >/dev/null 2>&1; then
	mount_volume
	(cd "$M" && timeout 100 "$TOOLS/treesum" . 2>/dev/null) >"$W/got" && cmp -s "$W/want" "$W/got" && fail "three of six nodes fail and nothing is missed"
fi
exit 0
