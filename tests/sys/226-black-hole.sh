# SPDX-License-Identifier: GPL-3.0-or-later
# Packets that vanish one way: what is sent to a server, or what it answers, each on one of two
# nodes at once, while connections are open and something large is being read.  The servers are
# in network namespaces of their own behind links of linkd.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip "needs root for network namespaces"
[ -c /dev/net/tun ] || skip "no /dev/net/tun"
have ip
have nsenter
. "$ROOT/tests/servers/drive.sh"
. "$ROOT/tests/servers/faults.sh"
P=hft$$
down() {
	local n
	for n in $(ip netns list | awk -v p="$P-" 'index($1, p) == 1 { print $1 }'); do ip netns del "$n"; done
}
trap 'rc=$?; down; (exit $rc); cleanup' EXIT
links=()
for n in c 1 2 3 4; do
	ip netns add "$P-$n" 2>"$W/err" || skip "no network namespace: $(cat "$W/err")"
	ip netns exec "$P-$n" ip link set lo up
	[ $n = c ] || links+=("n$n=$P-$n")
done
"$TOOLS/linkd" run "$W/ctl" "$P-c" "${links[@]}" >"$W/linkd.out" 2>&1 &
disown $!
for i in $(seq 1200); do
	grep -q ready "$W/linkd.out" && break
	sleep 0.05
done
grep -q ready "$W/linkd.out" || { cat "$W/linkd.out"; skip "no links"; }
for i in 1 2 3 4; do
	ip netns exec "$P-c" ip addr add "198.18.$i.1" peer "198.18.$i.2" dev n$i
	ip netns exec "$P-c" ip link set n$i up
	ip netns exec "$P-$i" ip addr add "198.18.$i.2" peer "198.18.$i.1" dev up0
	ip netns exec "$P-$i" ip link set up0 up
	ok "$TOOLS/linkd" set "$W/ctl" n$i delay=5 rate=100
done
# The program is where the links begin.
printf '#!/bin/sh\nexec nsenter --net=/run/netns/%s-c %s "$@"\n' "$P" "$HOLDFAST" >"$W/hf"
chmod 755 "$W/hf"
HOLDFAST=$W/hf

server n1 nginx "ns=$P-1" at=198.18.1.2
server n2 apache "ns=$P-2" at=198.18.2.2
server n3 lighttpd "ns=$P-3" at=198.18.3.2
server n4 nginx "ns=$P-4" at=198.18.4.2
mkdir "$W/n"
new_drive n1 n2 n3 n4 "dir:$W/n/1" "dir:$W/n/2"
kind out  'down' 'in time|no connection'
kind back 'down' 'in time|no connection'
fault_begin() { ok "$TOOLS/linkd" set "$W/ctl" "$2" hole="$1"; }
fault_end() { ok "$TOOLS/linkd" set "$W/ctl" "$2" hole=0; }
mount_volume
make_tree "$M/t" "$SEED"
head -c 60000000 /dev/urandom >"$W/far"
cp "$W/far" "$M/far"
ok hf sync v --protected
for how in "out n1 back n3" "back n2 out n1"; do
	set -- $how
	fresh
	# In the middle of a read of what is only on nodes; slow enough not to be over before.
	for i in 1 2 3 4; do ok "$TOOLS/linkd" set "$W/ctl" n$i rate=25; done
	t0=$SECONDS
	dd if="$M/far" bs=1M status=none | cmp - "$W/far" & reader=$!
	until_status '[.nodes[] | select((.downloaded // 0) > 2000000)] | length >= 2'
	fault_begin $1 $2
	fault_begin $3 $4
	kill -0 $reader 2>/dev/null || fail "it was read before anything happened"
	wait $reader || fail "$how: reading"
	echo "$how: read on after $((SECONDS - t0)) s"
	fault_end $1 $2
	fault_end $3 $4
	for i in 1 2 3 4; do ok "$TOOLS/linkd" set "$W/ctl" n$i rate=100; done
	until_status '.protected and ([.nodes[] | select(.state != "up" and .state != "slow")] == [])'
	pair $how
done
umount_volume
ok hf fsck v --nodes --deep
exit 0
