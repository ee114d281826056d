# SPDX-License-Identifier: GPL-3.0-or-later
# Servers whose disk is full, each saying so in its own way: by something else, on two nodes at a
# time, and by the drive's own data.  The drive goes on, names those nodes as full and no others,
# an empty machine recovers meanwhile, and protection comes back by itself when there is room.
# Three are too many: what is written then stays here, which is said, and is published later.  At
# last, servers that keep half of what they get.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
server n1 nginx fs=40
server n2 apache fs=40
server n3 lighttpd fs=40
server n4 nginx tls
server n5 apache digest
server n6 lighttpd digest
proxy n4
proxy n5
new_drive n1 n2 n3 n4 n5 n6

left() { df --output=avail -B1 "$W/srv/$1/fs" | tail -n 1; }
fill() { # name [bytes that stay free]
	head -c $(($(left "$1") - ${2:-0})) /dev/zero >"$W/srv/$1/fs/filler" 2>/dev/null
	[ "$(left "$1")" -le $((${2:-0} + 8192)) ] || fail "the disk of $1 is not full"
}
room() { rm -f "$W/srv/$1/fs/filler"; }
# Each was seen as full with a sentence that says so, and no other node was blamed.
full() {
	local n
	for n in "$@"; do
		until_node "$n" '.state == "full" and (.error // "" | test("full|space"))' 300
		echo "	$n: $(node "$n" .error)"
	done
	innocent "$@"
}
# write SIZE: a tree and so many bytes
write() {
	rm -rf "$M/now" && make_tree "$M/now" $((SEED % 1000 + $1 % 999))
	head -c "$1" /dev/urandom >"$M/large-$1"
	want
}
whole() {
	until_status '.protected and ([.nodes[] | select(.state != "up" and .state != "slow")] == [])' 900
	same "$1"
	echo "$1: whole after $((SECONDS - t0)) s"
}

mount_volume
make_tree "$M/t" "$SEED"
ok hf sync v --protected
for two in "n1 n2" "n2 n3"; do
	t0=$SECONDS
	for n in $two; do fill $n; done
	write $((10000000 + RANDOM))
	ok timeout 120 "$HOLDFAST" sync v
	echo "$two full: published after $((SECONDS - t0)) s"
	full $two
	hf status v --json | jq -e '.protected | not' >/dev/null || fail "$two are full, and all is said to be protected"
	fresh
	same "$two full"
	echo more >"$M/more"
	want
	ok timeout 120 "$HOLDFAST" sync v
	for n in $two; do room $n; done
	whole "$two have room"
done

# The drive's own data fill two of them: the last shard that fits, and those after it.
t0=$SECONDS
fill n1 9000000
fill n2 5000000
for i in 1 2 3 4 5; do
	head -c 10000000 /dev/urandom >"$M/own-$i"
	ok timeout 120 "$HOLDFAST" sync v
done
full n1 n2
want
fresh
same "filled by its own data"
room n1
room n2
whole "after its own data"

# Three.
t0=$SECONDS
for n in n1 n2 n3; do fill $n; done
write $((12000000 + RANDOM))
no 1 hf sync v --timeout 20
sed 's/^/	/' "$W/err"
full n1 n2 n3
hf status v --json | jq -e '.unpublished.bytes > 0' >/dev/null || fail "three are full, and nothing is said to be unpublished"
same "three full"
for n in n1 n2 n3; do room $n; done
whole "three have room"

# Two keep half of what they get and say that it is stored.  Who reads it notices, and all of it
# is found and made good when it is looked for.
for n in n4 n5; do fault $n '{"do":"clip","match":"^PUT .*/s/"}'; done
write $((14000000 + RANDOM))
# On all of them: what comes later comes whole.
ok timeout 120 "$HOLDFAST" sync v --protected
for n in n4 n5; do fault $n; done
fresh
same "half of it on two"
hf scrub v >"$W/scrub.out" && fail "half of what is on two nodes is missing, and scrub finds nothing"
for n in n4 n5; do
	[ "$(node $n .state)" = lying ] || { node $n .; fail "$n kept half of it and is not named"; }
done
until_status .protected 900
ok hf scrub v
umount_volume
ok hf fsck v --nodes --deep
server_stop n4
server_stop n5
fresh
same "on those that were full"
exit 0
