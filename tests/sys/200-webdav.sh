# SPDX-License-Identifier: GPL-3.0-or-later
# WebDAV nodes of every kind in one drive, http and https with an authority of our own, Basic,
# Digest and bearer: whatever two are gone, an empty machine with the kit has everything.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
six_servers
names=(n1 n2 n3 n4 n5 n6)

# What cannot work is refused before anything is made, and nothing is left.
refused() { # word, then what is instead of the first node's URL
	no 1 hf create x --node "$2" --node "$(node_url n2)" --node "$(node_url n3)" \
		--kit "$W/kit-x" --credentials "$W/credentials"
	says "$1"
	[ -e "$HOLDFAST_HOME/x" ] || [ -e "$W/kit-x" ] && fail "a create that failed left something"
	return 0
}
credentials "$W/credentials"
good=${srv_pass[n1]}
refused certificate "$(node_url n4 | sed 's/&ca=[^&]*//')"
refused profile "$(node_url n1 | sed 's/=n1/=nobody/')"
server_password n1 other
refused credentials "$(node_url n1)"
server_password n1 "$good"
# A token: wrong, absent, and then the one of the file.
grep -A1 '^\[n4\]' "$W/credentials" | grep -q '^bearer = ' || fail "n4 takes no token"
good=${srv_pass[n4]}
server_password n4 other
refused credentials "$(node_url n4)"
server_password n4 "$good"
refused credentials "$(node_url n4 | sed 's/=n4/=n1/')"
[ "$(curl -qs -o /dev/null -w '%{http_code}' --cacert "$W/srv/tls/ca.pem" "https://127.0.0.1:${srv_port[n4]}/")" = 401 ] ||
	fail "the server lets everybody in"
server_stop n1
refused connect "$(node_url n1)"
server_start n1
for n in n1 n2 n3 n4; do
	[ -z "$(find "$(server_data $n)" -type f)" ] || fail "a create that failed left a file on $n"
done

new_drive "${names[@]}"
mount_volume
make_tree "$M/t" "$SEED"
head -c 40000000 /dev/urandom >"$M/large"
want
ok hf sync v --protected
for n in "${names[@]}"; do
	[ "$(find "$(server_data $n)/drive/s" -type f | wc -l)" -ge 3 ] || fail "no shards on $n"
	[[ $(node $n .state) == @(up|slow) ]] || { node $n .; fail "$n is not well"; }
done
umount_volume
ok hf fsck v --nodes --deep

for pair in "n1 n2" "n3 n4" "n5 n6" "n1 n4"; do
	for n in $pair; do server_stop $n; done
	fresh
	same "without $pair"
	for n in $pair; do until_node $n '.state == "down" and (.error // "") != ""'; done
	innocent $pair
	for n in $pair; do server_start $n; done
done
until_status '.protected and .survives == 2'
umount_volume

# Three are too many: said, and nothing made up.
server_stop n2
server_stop n3
server_stop n6
export HOLDFAST_HOME=$W/home-x
no 1 hf recover "$W/kit.txt" v
says 3
[ -e "$HOLDFAST_HOME/v" ] && fail "a recovery that failed left something"
exit 0
