# SPDX-License-Identifier: GPL-3.0-or-later
# A new node's place: the directory of another node is recognised whatever its address, as are
# what lies within it or above it, the state directory and the drive itself; and a trial that is
# interrupted ends, adds nothing and leaves nothing, with the drive mounted or not.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
new_volume
nodes() { hf node list v --json | jq -r '[.[].url] | sort | join(" ")'; }
before=$(nodes)
mkdir -p "$W/links" "$W/empty"
ln -s "$W/n/1" "$W/links/one"
ln -s "$W/n" "$W/links/all"
refused() { # word address
	no 1 hf node add v "$2"
	says "$1"
	eq "$(nodes)" "$before" "after $2"
}
refuse_all() {
	refused "node-1" "dir:$W/links/one"
	refused "one within the other" "dir:$W/links/one/below"
	refused "node-2" "dir:$W/links/all/2"
	refused "one within the other" "dir:$W/links/all"
	refused "state directory" "dir:$HOLDFAST_HOME/x"
	no 1 hf node replace v node-1 "dir:$W/links/one"
	says "already"
	# Not this way: an address has no dots at all.
	no 2 hf node add v "dir:$W/n/../n/1"
	mkdir -p "$W/bound"
	if mount --bind "$W/n/3" "$W/bound" 2>/dev/null; then
		refused "node-3" "dir:$W/bound"
		refused "one within the other" "dir:$W/bound/below"
		umount "$W/bound"
	fi
	[ -e "$W/n/1/below" ] || [ -e "$W/n/3/below" ] && fail "something was made in a node"
	return 0
}
refuse_all
# create knows the same.
if mount --bind "$W/empty" "$W/bound" 2>/dev/null; then
	no 2 hf create w --node "dir:$W/empty" --node "dir:$W/bound/sub" --kit "$W/kit-w"
	says "one lies within the other"
	umount "$W/bound"
fi
mount_volume
refuse_all
refused "mount point" "dir:$M/node"
umount_volume

# A server that takes the first blob and then no more.
server d nginx
proxy d
credentials "$W/credentials"
held() { find "$(server_data d)" -type f | wc -l; }
stuck() {
	fault d '{"do":"stall","match":"^GET .*/v/p","bytes":10}'
	forget_requests
}
wait_stuck() {
	local i
	for i in $(seq 300); do
		[ "$(requests d 'GET .*/v/p.*')" -eq 0 ] || break
		sleep 0.1
	done
	[ "$(requests d 'GET .*/v/p.*')" -gt 0 ] || fail "the trial did not begin"
	[ "$(held)" -gt 0 ] || fail "nothing was written"
}
stuck
"$HOLDFAST" node add v "$(node_url d)" --credentials "$W/credentials" >"$W/out" 2>"$W/err" &
pid=$!
wait_stuck
kill -TERM $pid
wait $pid && fail "it was added"
says interrupted
[ "$(grep -c . "$W/err")" -eq 1 ] || { cat "$W/err"; fail "not one line"; }
eq "$(held)" 0 "$(find "$(server_data d)" -type f)"
eq "$(nodes)" "$before"

mount_volume
stuck
"$HOLDFAST" node add v "$(node_url d)" --credentials "$W/credentials" >"$W/out" 2>"$W/err" &
pid=$!
wait_stuck
kill -TERM $pid
wait $pid && fail "it was added"
for i in $(seq 300); do
	[ "$(held)" -ne 0 ] || break
	sleep 0.1
done
eq "$(held)" 0 "$(find "$(server_data d)" -type f)"
eq "$(nodes)" "$before"
# And then it is added, with the number that was meant for it.
fault d
ok hf node add v "$(node_url d)" --credentials "$W/credentials" >"$W/out"
hf node list v --json | jq -e '[.[] | select(.name == "node-7")] | length == 1' >/dev/null || fail "no node-7"
umount_volume
# A place that cannot serve: the directory that was made for it is not left.
mkdir "$W/full"
if mount -t tmpfs -o size=64k tmpfs "$W/full" 2>/dev/null; then
	no 1 hf node add v "dir:$W/full/node"
	[ -e "$W/full/node" ] && { find "$W/full"; fail "a directory is left"; }
	umount "$W/full"
fi
exit 0
