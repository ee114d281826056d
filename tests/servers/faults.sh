# SPDX-License-Identifier: GPL-3.0-or-later
# Servers that fail, two at a time.  Sourced after drive.sh; the nodes are behind proxies.
#
#   kind NAME STATES SENTENCE [RULE]   what a fault is, and regular expressions for what the status
#                                      then says; states "": it harms nobody, nobody is to be blamed
#   fault_begin|fault_end KIND NODE
#   pair KIND NODE KIND NODE           both at once.  While it lasts the drive publishes, and an empty
#                                      machine recovers and reads every byte; both nodes are named, with
#                                      a state and a sentence, and no others are; when it is over the
#                                      drive protects itself again without being told
#   faulty_drive                       v on six servers behind proxies, mounted, with a tree, whole
# With $words set a pair is taken only when both its kinds are among them.
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
kind garbage   '[a-z]+' 'not HTTP|connection' '{"do":"garbage"}'
kind reset     '[a-z]+' 'connection' '{"do":"reset"}'
kind midbody   '[a-z]+' 'connection broke|cut short|without an answer' '{"do":"reset","bytes":100,"match":"^GET"}'
kind stall     '[a-z]+' 'late|not a byte|in time' '{"do":"stall","match":"^GET .*/s/"}'
kind truncated '[a-z]+' 'cut short|without an answer' '{"do":"cut","match":"^GET"}'
kind shortened '[a-z]+' 'cut short|length' '{"do":"cut","length":false,"match":"^GET .*/s/"}'
kind cutup     '[a-z]+' 'connection' '{"do":"cutup","match":"^PUT .*/[sl]/"}'
kind corrupt   'lying' 'not genuine' '{"do":"corrupt","match":"^GET .*/[sl]/"}'
kind stale     '[a-z]+' '.' '{"do":"stale"}'
kind lostack   '[a-z]+' 'connection' '{"do":"lostack","match":"^PUT"}'
kind zombie    '[a-z]+' '503' '{"do":"zombie","ms":1500,"match":"^PUT"}'
kind whole     '' '' '{"do":"whole"}'
kind gzip      '[a-z]+' 'cut short|not genuine|length' '{"do":"gzip","match":"^GET"}'
kind slow      '[a-z]+' 'late|not a byte|in time' '{"do":"slow","rate":3000}'
kind twice     '' '' '{"do":"dup","match":"^PUT"}'
kind late      '' '' '{"do":"late","ms":150}'
kind sometimes '' '' '{"do":"reset","p":0.1}'

fault_begin() { # kind node
	case $1 in
	hang) server_pause "$2" ;;
	crash) server_crash "$2" ;;
	password) server_password "$2" "another one" ;;
	*) fault "$2" "${rule[$1]}" ;;
	esac
}
fault_end() {
	case $1 in
	hang) server_resume "$2" ;;
	crash) server_start "$2" ;;
	password) server_password "$2" "${srv_pass[$2]}" ;;
	*) fault "$2" ;;
	esac
}
# What the status says is looked at all the time: a node that answers some requests well is
# trusted again, and its sentence is gone.
watch() {
	: >"$W/statuses"
	while kill -0 $$ 2>/dev/null; do
		HOLDFAST_HOME=$(cat "$W/home-now") hf status v --json >"$W/a-status" 2>/dev/null &&
			jq -c 'select(.mounted) | .nodes[]' "$W/a-status" >>"$W/statuses"
		sleep 0.2
	done
}
# What was so before a pair began is no part of it: a node that lied keeps that state for ten
# minutes.
jq_since='def seen(f): [.url, .state, .since, f] as $x | any($before[]; [.url, .state, .since, f] == $x);'
of_node() { echo "select(.url | contains(\":${srv_proxy[$1]:-${srv_port[$1]}}/\"))"; }
named() { # node states sentence: prints state and sentence
	jq -r --slurpfile before "$W/before" "$jq_since $(of_node "$1") | select(.error and (seen(.error) | not) and
		(.state | test(\"^($2)\$\")) and (.error | test(\"$3\"; \"i\"))) | .state + \": \" + .error" \
		"$W/statuses" | sort | uniq -c | sort -rn | sed -n '1s/^ *[0-9]* //p'
}
blamed() { # node...: others than these that are not up or slow
	local n not=true
	for n in "$@"; do not+=" and ($(of_node "$n" | sed 's/^select//') | not)"; done
	jq -r --slurpfile before "$W/before" "$jq_since select($not) | select(.state != \"up\" and .state != \"slow\" and
		.error != \"not tried yet\" and (seen(0) | not)) | .name + \" \" + .state + \": \" + .error" "$W/statuses" | sort | uniq -c
}
show() { jq -c '[.url, .state, .error]' "$W/statuses" | sort | uniq -c; }
publish() { timeout 240 "$HOLDFAST" sync v >"$W/sync.out" 2>&1 || { cat "$W/sync.out"; fail "not published"; }; }
round=0
words=()
# Tenths of a second since the pair began.
lap() { local d=$((${EPOCHREALTIME/./} / 100000 - begun)); laps+="${laps:+, }$1 $((d / 10)).$((d % 10))"; }
pair() {
	local a=$1 x=$2 b=$3 y=$4 i begun=$((${EPOCHREALTIME/./} / 100000)) laps='' said_a said_b
	if [ ${#words[@]} -gt 0 ] && ! [[ " ${words[*]} " == *" $a "* && " ${words[*]} " == *" $b "* ]]; then return; fi
	round=$((round + 1))
	echo "$HOLDFAST_HOME" >"$W/home-now"
	hf status v --json | jq -c '.nodes[]' >"$W/before"
	watch & watcher=$!
	fault_begin $a $x
	fault_begin $b $y
	rm -rf "$M/now" && make_tree "$M/now" $((SEED % 1000 + round))
	head -c 3000000 /dev/urandom >"$M/large"
	want
	publish
	lap published
	fresh
	echo "$HOLDFAST_HOME" >"$W/home-now"
	lap recovered
	same "$a and $b, while it lasts"
	lap read
	echo $round >"$M/again"
	want
	publish
	lap again
	for i in $(seq 300); do
		said_a=${states[$a]:+$(named $x "${states[$a]}" "${sentence[$a]}")}
		said_b=${states[$b]:+$(named $y "${states[$b]}" "${sentence[$b]}")}
		[ "${said_a:-${states[$a]:+no}}" != no ] && [ "${said_b:-${states[$b]:+no}}" != no ] && break
		# From one that was slow just then nothing was read.
		[ $((i % 100)) -ne 0 ] || {
			fresh
			echo "$HOLDFAST_HOME" >"$W/home-now"
			same "$a and $b, once more"
		}
		sleep 0.2
	done
	kill $watcher
	wait $watcher 2>/dev/null
	[ -z "${states[$a]}" ] || [ "$said_a" ] || { show; fail "$a: $x is not named as ${states[$a]}, '${sentence[$a]}'"; }
	[ -z "${states[$b]}" ] || [ "$said_b" ] || { show; fail "$b: $y is not named as ${states[$b]}, '${sentence[$b]}'"; }
	i="${states[$a]:+$x} ${states[$b]:+$y}"
	[ -z "$(blamed $i)" ] || { blamed $i; fail "$a and $b: others are blamed"; }
	fault_end $a $x
	fault_end $b $y
	lap named
	until_status .protected 900
	same "$a and $b, afterwards"
	lap 'whole and read'
	echo "$a $x, $b $y: $laps s"
	for i in "$said_a" "$said_b"; do [ -z "$i" ] || echo "	$i"; done
}

faulty_drive() {
	local n names=(n1 n2 n3 n4 n5 n6)
	six_servers
	for n in "${names[@]}"; do proxy $n; done
	new_drive "${names[@]}"
	mount_volume
	make_tree "$M/t" "$SEED"
	ok hf sync v --protected
}
