# SPDX-License-Identifier: GPL-3.0-or-later
# Credentials from the command line to the kit and back: checked before anything is made, kept
# sealed, replaced after a password changed, in no place where they can be read.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/servers.sh"
for s in a b c; do server $s nginx; done
credentials "$W/creds"
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_PROFILE AWS_SHARED_CREDENTIALS_FILE AWS_CONFIG_FILE
export HOME=$W/nobody
mkdir "$HOME" "$W/d"
urls=(--node "$(node_url a)" --node "$(node_url b)" --node "$(node_url c)" --node "dir:$W/d/1")
nothing() {
	[ -e "$HOLDFAST_HOME/v" ] && fail "$1: a refused create left the volume"
	[ -e "$W/kit" ] && fail "$1: a refused create left a kit"
	[ -e "$W/d/1" ] && fail "$1: a refused create left a node"
	for s in a b c; do
		[ -z "$(find "$(server_data $s)" -type f)" ] || fail "$1: a refused create left blobs on $s"
	done
}
create() { hf create v "${urls[@]}" --survive 1 --kit "$W/kit" "$@"; }

# Nothing is made without them.
no 1 create
says 'profile=\|credentials "[abc]"'
nothing "no credentials"
no 1 create --credentials "$W/absent"
nothing "no file"
printf '[a]\nusername = x\n' >"$W/half" && chmod 600 "$W/half"
no 1 create --credentials "$W/half"
says "go together"
printf '[a]\naccess_key = x\nsecret_key = y\n' >"$W/other" && chmod 600 "$W/other"
no 1 create --credentials "$W/other"
says "username and"
cp "$W/creds" "$W/open" && chmod 644 "$W/open"
no 1 create --credentials "$W/open"
says "chmod 600"
sed "s/${srv_pass[b]}/wrongwrong/" "$W/creds" >"$W/wrong" && chmod 600 "$W/wrong"
no 1 create --credentials "$W/wrong"
says "node dav+http.*profile=b.*401"
nothing "wrong password"

ok create --credentials "$W/creds" >"$W/create.out"
grep -q "node-4 .*dir:" "$W/create.out" || fail "no line for each node: $(cat "$W/create.out")"
eq "$(stat -c %a "$HOLDFAST_HOME/v/credentials")" 600
mount_volume
make_tree "$M/t" 1 dense # what looks for secrets reads it all
ok hf sync v --protected >/dev/null
p=$(daemon_pid)
secret() {
	local s
	for s in a b c; do
		grep -r -l -a "${srv_pass[$s]}" "$@" 2>/dev/null && fail "a password lies in the clear"
	done
	true
}
secret "$HOLDFAST_HOME" "$W/kit" "$W/create.out"
tr '\0' '\n' <"/proc/$p/environ" >"$W/environ"
tr '\0' '\n' <"/proc/$p/cmdline" >"$W/cmdline"
hf status v --json >"$W/status"
hf node list v >"$W/list"
secret "$W/environ" "$W/cmdline" "$W/status" "$W/list"
jq -e '.nodes[0] | .latency_ms != null and .requests.put > 0 and .domain == null' "$W/status" >/dev/null ||
	fail "no figures: $(cat "$W/status")"
was=$(tree "$M")
umount_volume

# Without the passphrase servers are not asked, and that is said; with it they are.
HOLDFAST_PASSPHRASE_FILE='' hf status v --json >"$W/status" </dev/null
eq "$(jq -r '.nodes[0].state' "$W/status")" unknown
jq -r '.nodes[0].error' "$W/status" | grep -q passphrase || fail "not said why"
jq -e '.warning' "$W/status" | grep -q "3 of 4" || fail "no warning"
eq "$(jq -r '.nodes[3].state' "$W/status")" up
eq "$(hf status v --json | jq -r '.nodes[0].state')" up

# A changed password: the mount comes up and works, that node refuses, the new one heals it.
server_password b changed-at-the-server
server_stop b && server_start b
mount_volume
until_status '.nodes[1].state == "refusing"'
hf status v --json | jq -r '.nodes[1].error' | grep -q 401 || fail "the reason is not said"
eq "$(tree "$M")" "$was" "with one node refusing"
echo more >"$M/more"
ok hf sync v >/dev/null
umount_volume
printf '[b]\nusername = node\npassword = changed-at-the-server\n' >"$W/new" && chmod 600 "$W/new"
printf '[b]\nbearer = \n' >"$W/bad" && chmod 600 "$W/bad"
no 1 hf mount v "$M" --credentials "$W/bad"
mountpoint -q "$M" && fail "mounted with a bad file"
no 1 hf credentials v "$W/new"
says "not mounted"
mount_volume --credentials "$W/new"
until_status '.nodes[1].state == "up"'
ok hf sync v --protected >/dev/null
umount_volume
mount_volume
until_status '.nodes[1].state == "up"'
# Once more, with the drive mounted.
server_password b changed-again
server_stop b && server_start b
echo while >"$M/while-refusing"
ok hf sync v >/dev/null
until_status '.nodes[1].state == "refusing"'
no 1 hf mount v "$W/m" --credentials "$W/new"
says "holdfast credentials v"
no 1 hf credentials v "$W/absent"
no 1 hf credentials v "$W/bad"
eq "$(hf status v --json | jq -r '.nodes[1].state')" refusing
printf '[b]\nusername = node\npassword = changed-again\n' >"$W/new" && chmod 600 "$W/new"
ok hf credentials v "$W/new" >"$W/out"
secret "$W/out"
until_status '.nodes[1].state == "up"'
ok hf sync v --protected >/dev/null
# The other way: what is kept is what is used, and wrong ones show at once.
printf '[b]\nusername = node\npassword = wrong\n' >"$W/wrong-b" && chmod 600 "$W/wrong-b"
no 1 hf credentials v "$W/wrong-b"
says "untried"
until_status '.nodes[1].state == "up"'
ok hf credentials v "$W/wrong-b" --untried >/dev/null
echo wrong >"$M/while-wrong"
ok hf sync v >/dev/null
until_status '.nodes[1].state == "refusing"'
ok hf credentials v "$W/new" >/dev/null
until_status '.nodes[1].state == "up"'
ok hf sync v --protected >/dev/null
umount_volume
mount_volume
until_status '.nodes[1].state == "up"'
was=$(tree "$M")
umount_volume

# The kit has the old one of b: that node is not needed to find the new one, which lies on the
# others; --credentials goes before both.
mv "$HOLDFAST_HOME" "$W/home1"
ok hf recover "$W/kit" v >"$W/out" 2>"$W/err"
mount_volume
eq "$(tree "$M")" "$was" "recovered from the kit"
until_status '[.nodes[].state] == ["up","up","up","up"]'
umount_volume
mv "$HOLDFAST_HOME" "$W/home2"
ok hf recover "$W/kit" v --credentials "$W/new" >"$W/out"
mount_volume
until_status '[.nodes[].state] == ["up","up","up","up"]'
eq "$(tree "$M")" "$was" "recovered with --credentials"
umount_volume
secret "$HOLDFAST_HOME"

# What keeps them damaged: the drive comes up, says so, and can be given them again.
echo damage >"$HOLDFAST_HOME/v/credentials"
ok hf mount v "$M" 2>"$W/err"
says "credentials.*damaged"
eq "$(tree "$M")" "$was" "from what is on this machine"
ok hf umount "$M" --now
sed "s/${srv_pass[b]}/changed-again/" "$W/creds" >"$W/all" && chmod 600 "$W/all"
mount_volume --credentials "$W/all"
until_status '[.nodes[].state] == ["up","up","up","up"]'
umount_volume

# No server in reach: it mounts all the same.
for s in a b c; do server_stop $s; done
mount_volume
eq "$(cat "$M/more")" more
ok hf umount "$M" --now
