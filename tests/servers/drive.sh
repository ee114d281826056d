# SPDX-License-Identifier: GPL-3.0-or-later
# A drive on real servers.  Sourced after sys/lib.sh; brings servers.sh.
#
#   six_servers           n1..n6: of all kinds, http and https, Basic, Digest and bearer
#   new_drive NAME...     volume v on these servers (or URLs), survive 2, kit and credentials in $W
#   node NAME JQ          what the jq expression says of that node's part of the status
#   until_node NAME JQ    waits until it is true
#   innocent NAME...      no other node than these is blamed for anything
#   fresh                 leaves the mount without waiting, recovers on an empty home, mounts
#   same                  what the mount holds is what $W/want says
. "$ROOT/tests/servers/servers.sh"

six_servers() {
	server n1 nginx
	server n2 apache
	server n3 lighttpd tls
	server n4 nginx tls bearer
	server n5 apache digest
	server n6 lighttpd digest
}
new_drive() {
	local n urls=()
	for n in "$@"; do [[ $n == *:* ]] && urls+=(--node "$n") || urls+=(--node "$(node_url "$n")"); done
	credentials "$W/credentials"
	ok hf create v "${urls[@]}" --survive 2 --kit "$W/kit.txt" --credentials "$W/credentials" >"$W/create.out"
}
node_jq() { # name jq: an expression for the whole status
	echo ".nodes[] | select(.url | contains(\":${srv_proxy[$1]:-${srv_port[$1]}}/\")) | $2"
}
node() { hf status v --json | jq -r "$(node_jq "$1" "$2")"; }
until_node() { until_status "$(node_jq "$1" "$2")" "${3:-900}"; }
innocent() {
	local n not=true
	for n in "$@"; do not+=" and (.url | contains(\":${srv_proxy[$n]:-${srv_port[$n]}}/\") | not)"; done
	hf status v --json >"$W/status"
	jq -e "[.nodes[] | select($not) | select(.state != \"up\" and .state != \"slow\")] == []" "$W/status" >/dev/null ||
		{ jq -c '.nodes[]' "$W/status"; fail "another node than $* is blamed"; }
}
homes=0
fresh() {
	mountpoint -q "$M" && ok timeout 60 "$HOLDFAST" umount "$M" --now
	homes=$((homes + 1))
	[ $homes -lt 2 ] || rm -rf "$HOLDFAST_HOME"
	export HOLDFAST_HOME=$W/home-$homes
	ok timeout 120 "$HOLDFAST" recover "$W/kit.txt" v >"$W/recover.out" 2>&1
	mount_volume "$@"
}
want() { tree "$M" >"$W/want"; }
same() {
	(cd "$M" && timeout 120 "$TOOLS/treesum" .) >"$W/got" || fail "reading the tree${1:+: $1}"
	diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "the tree differs${1:+: $1}"; }
}
