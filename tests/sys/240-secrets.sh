# SPDX-License-Identifier: GPL-3.0-or-later
# No credential, no passphrase and no kit secret is in what others may see: logs, arguments,
# environment, status, messages, the kit's text, the database and all other local files, what
# is on the nodes.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
server n1 nginx
server n2 apache digest
server n3 lighttpd tls
for n in n1 n2 n3; do proxy $n; done
new_drive n1 n2 n3 2>"$W/create.err" || fail "create"
# What must be nowhere: as it is, as base64, as Basic sends it, as hex.
secrets() {
	local n s
	for n in n1 n2 n3; do
		for s in "${srv_pass[$n]}" "node:${srv_pass[$n]}"; do
			echo "$s"
			printf %s "$s" | base64 -w0 | sed 's/=*$//'; echo
			printf %s "$s" | od -An -tx1 | tr -d ' \n'; echo
		done
	done
	head -n 1 "$W/pass"
}
secrets >"$W/secrets"
# search WHAT FILE...: which of the secrets is in these files
search() {
	local what=$1
	shift
	grep -rlaF -f "$W/secrets" -- "$@" >"$W/found" 2>/dev/null && { cat "$W/found"; fail "a secret in $what"; }
	return 0
}
everywhere() {
	local pid
	pid=$(daemon_pid)
	tr '\0' '\n' <"/proc/$pid/cmdline" >"$W/seen/cmdline"
	tr '\0' '\n' <"/proc/$pid/environ" >"$W/seen/environ"
	hf status v >"$W/seen/status" 2>&1
	hf status v --json >"$W/seen/status.json" 2>&1
	hf node list v >"$W/seen/list" 2>&1
	hf node list v --json >"$W/seen/list.json" 2>&1
	search "what the mount's process shows or commands say" "$W/seen"
	search "the state directory" "$HOLDFAST_HOME"
	search "the kit" "$W/kit.txt"
	search "what create says" "$W/create.out" "$W/create.err"
	for n in n1 n2 n3; do search "what the node $n holds" "$(server_data $n)"; done
}
mkdir "$W/seen"
mount_volume
# The search reads all that is on this disk, and a file that was deleted may be there for a while.
make_tree "$M/t" "$SEED" dense
ok hf sync v --protected
everywhere

# Now everything that makes messages: wrong passwords, redirects, garbage, refusals.
server_password n1 another
fault n2 '{"do":"garbage"}'
fault n3 '{"do":"status","code":302,"headers":{"Location":"http://user:word@other.example/"}}'
make_tree "$M/u" 2 dense
timeout 20 "$HOLDFAST" sync v --timeout 5 >"$W/seen/sync" 2>&1
until_node n1 '.state == "refusing" and (.error // "") != ""'
until_node n3 '(.error // "") != ""'
everywhere
ok hf umount "$M" --now
(export HOLDFAST_HOME=$W/home-x
	timeout 100 "$HOLDFAST" recover "$W/kit.txt" v) >"$W/seen/recover" 2>&1
hf fsck v --nodes >"$W/seen/fsck" 2>&1
search "messages" "$W/seen"
server_password n1 "${srv_pass[n1]}"
fault n2
fault n3
# Recovered from the kit: the credentials are here again, sealed.
fresh
everywhere
hf kit v --output "$W/kit2" >"$W/seen/kit" 2>&1
[ ! -e "$W/kit2" ] || search "another kit" "$W/kit2"
# The daemon leaves no core and its memory is nobody's.
eq "$(awk '/Max core/ { print $5 }' "/proc/$(daemon_pid)/limits")" 0 "core files"

# The control: one of each kind, planted, is found.
planted() { (search "$@") >/dev/null 2>&1 && fail "the search is blind to $1"; return 0; }
while read -r word; do
	printf 'bytes before\0%s\0bytes after\n' "$word" >"$HOLDFAST_HOME/v/planted"
	planted "a planted '$word'" "$HOLDFAST_HOME"
done <"$W/secrets"
exit 0
