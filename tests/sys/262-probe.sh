# SPDX-License-Identifier: GPL-3.0-or-later
# What create finds out about places that cannot be nodes, and that it leaves nothing there;
# a create that was killed; a node that comes back as an older copy of itself.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/servers.sh"
for s in a b c; do server $s nginx; done
proxy c
credentials "$W/creds"
mkdir "$W/d"
create() { hf create v --survive 1 --kit "$W/kit" --credentials "$W/creds" "$@"; }
# The same in the background, as one process that can be killed.
begin() { "$HOLDFAST" create v --survive 1 --kit "$W/kit" --credentials "$W/creds" "$@" >/dev/null 2>&1 & p=$!; }
three=(--node "$(node_url a)" --node "$(node_url b)" --node "$(node_url c)")
nothing() {
	local s
	[ -e "$HOLDFAST_HOME/v" ] && fail "$1: the volume's directory is left"
	for s in a b c; do
		[ -z "$(find "$(server_data $s)" -type f)" ] ||
			fail "$1: blobs are left on $s: $(find "$(server_data $s)" -type f)"
	done
}

# One place under two addresses, as text and as it turns out.
no 2 create "${three[@]}" --node "$(node_url a | sed 's/?.*//')?profile=b"
says "same place"
no 2 create "${three[@]}" --node "$(node_url a drive/below)"
says "within"
no 1 create "${three[@]}" --node "$(node_url a | sed 's/127.0.0.1/localhost/')"
says "same place"
nothing "two addresses"
# Not a server, and one that says no.
no 1 create "${three[@]}" --node "dav+http://127.0.0.1:1/x?profile=a"
says "127.0.0.1:1/x"
nothing "nobody there"
fault c '{"match":"^PUT","do":"status","status":403}'
no 1 create "${three[@]}"
says "$(node_url c | sed 's/?.*//').*written"
nothing "no PUT"
fault c '{"match":"^PROPFIND","do":"status","status":403}'
no 1 create "${three[@]}"
says "listed"
nothing "no listing"
fault c '{"match":"^GET","do":"corrupt"}'
no 1 create "${three[@]}"
says "$(node_url c | sed 's/?.*//')"
fault c
nothing "corrupt"

away() { # with all that a create made
	local s
	rm -rf "$HOLDFAST_HOME/v" "$W/kit"
	for s in a b c; do rm -rf "$(server_data $s)/drive"; done
}
# Killed at random points; the next create of that name clears up and succeeds.
for i in 1 2 3 4 5 6 7 8; do
	begin "${three[@]}"
	sleep "0.$((RANDOM % 60 + 5))"
	kill -9 $p 2>/dev/null && wait $p 2>/dev/null
	if [ -e "$HOLDFAST_HOME/v/volume.json" ]; then
		# It was quicker: away with all of it.
		away
	fi
done
# Killed before it had made a folder: there is nothing to clear up on these servers.
begin "${three[@]}"
while [ ! -e "$HOLDFAST_HOME/v/making" ] && kill -0 $p 2>/dev/null; do sleep 0.01; done
kill -9 $p 2>/dev/null
wait $p 2>/dev/null
if [ -e "$HOLDFAST_HOME/v/making" ] && [ ! -e "$HOLDFAST_HOME/v/volume.json" ]; then
	for s in a b c; do rm -rf "$(server_data $s)/drive"; done
	ok create "${three[@]}" >/dev/null
fi
away
# A server that is away cannot be cleared: said, and nothing is forgotten.
begin "${three[@]}"
while [ -z "$(find "$(server_data b)" -name node)" ] && kill -0 $p 2>/dev/null; do sleep 0.01; done
kill -9 $p 2>/dev/null
wait $p 2>/dev/null
if [ ! -e "$HOLDFAST_HOME/v/volume.json" ] && [ -e "$HOLDFAST_HOME/v/making" ]; then
	server_stop b
	no 1 create "${three[@]}"
	says "was stopped"
	[ -e "$HOLDFAST_HOME/v/making" ] || fail "what is left on b is forgotten"
	server_start b
else
	away
fi
ok create "${three[@]}" --json >"$W/out"
jq -e '(.probe | length) == 3 and .probe[0].write_ms >= 0 and .probe[0].upload_rate > 0' "$W/out" >/dev/null ||
	fail "no probe in the report: $(cat "$W/out")"
[ -z "$(find "$W/srv" -path '*/v/p*' -type f)" ] || fail "a probe's blobs are left"
# A node of this drive is not taken for another one's.
mv "$W/kit" "$W/kit1"
no 1 hf create w "${three[@]}" --survive 1 --kit "$W/kit" --credentials "$W/creds"
says "in use already"

# An older copy of a node comes back: named, and what it lacks is stored again.
mount_volume
make_tree "$M/one"
ok hf sync v --protected >/dev/null
umount_volume
server_stop b
cp -a "$(server_data b)/drive" "$W/older"
server_start b
mount_volume
make_tree "$M/two" 2
head -c 3000000 /dev/urandom >"$M/big"
ok hf sync v --protected >/dev/null
was=$(tree "$M")
umount_volume
had=$(find "$(server_data b)/drive/s" -type f | wc -l)
server_stop b
rm -rf "$(server_data b)/drive"
cp -a "$W/older" "$(server_data b)/drive"
server_start b
[ "$(find "$(server_data b)/drive/s" -type f | wc -l)" -lt "$had" ] || fail "the older copy is none"
mount_volume
ok hf sync v --protected >/dev/null
for _ in $(seq 300); do
	grep -q "an older copy of this node" "$HOLDFAST_HOME/v/log" && break
	sleep 0.1
done
grep "an older copy of this node" "$HOLDFAST_HOME/v/log" | grep -q "$(node_url b | sed 's/?.*//')" ||
	fail "the node that is an older copy is not named"
ok hf sync v --protected >/dev/null
eq "$(find "$(server_data b)/drive/s" -type f | wc -l)" "$had" "what it lacked"
umount_volume
# So it can stand in for another.
server_stop a
mv "$HOLDFAST_HOME" "$W/home1"
ok hf recover "$W/kit1" v >/dev/null
mount_volume
eq "$(tree "$M")" "$was" "read through the node that was an older copy"
