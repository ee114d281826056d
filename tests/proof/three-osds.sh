#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A drive on six buckets of one real cluster: Ceph's gateway over https, its objects erasure-coded
# over three OSDs on disk.  MIB (1024) of files are written; an OSD is killed; everything is read
# through the two that are left, recovered from the kit by an empty machine, and more is written;
# the OSD comes back and every shard is verified.  Prints what each step took.
. "$(dirname "$0")/../sys/lib.sh"
. "$ROOT/tests/servers/drive.sh"
MIB=${MIB:-1024}
t0=$(date +%s%N)
step() { # what [MiB]
	local ms=$((($(date +%s%N) - t0) / 1000000))
	printf '%-48s %7d.%d s%s\n' "$1" $((ms / 1000)) $((ms % 1000 / 100)) \
		"${2:+$(printf '%8d MB/s' $(($2 * 1048576 / 1000 / (ms + 1))))}"
	t0=$(date +%s%N)
}
server s ceph tls disk osds=3 ec=2,1
urls=()
for i in 1 2 3 4 5 6; do
	ceph_bucket s "hf-$i"
	urls+=(--node "$(node_url s "hf-$i/drive" style=virtual)")
done
ceph_ask() { timeout 60 "${srv_as[@]}" ceph -c "$W/srv/s/conf" "$@" 2>/dev/null; }
ceph_ask osd pool ls detail | grep -q "'default.rgw.buckets.data' erasure profile node size 3 min_size 2" ||
	{ ceph_ask osd pool ls detail; fail "the buckets are not erasure-coded"; }
step "three OSDs, six buckets"

credentials "$W/credentials"
ok hf create v "${urls[@]}" --survive 2 --kit "$W/kit.txt" --credentials "$W/credentials" >"$W/create.out"
# What is read has to come from the buckets.
mount_volume -o cache_size=64M
step "create and mount"
make_tree "$M/t" "$SEED"
for i in $(seq $((MIB / 64))); do head -c 67108864 /dev/urandom >"$M/f$i" || fail "writing"; done
ok hf sync v --protected --timeout 1800 >/dev/null 2>&1
step "written, on all six buckets" "$MIB"
want
step "read" "$MIB"

ceph_osd_crash s 1
step "osd.1 killed, and noticed by the monitor"
umount_volume
mount_volume -o cache_size=64M
(cd "$M" && "$TOOLS/treesum" .) >"$W/got" || fail "reading without osd.1"
diff "$W/want" "$W/got" >/dev/null || fail "the tree differs without osd.1"
step "all read without osd.1" "$MIB"
hf status v --json | jq -e '[.nodes[] | select(.state != "up" and .state != "slow")] == []' >/dev/null ||
	{ hf status v; fail "a bucket is blamed"; }
head -c 67108864 /dev/urandom >"$M/more"
ok hf sync v --protected --timeout 1800 >/dev/null 2>&1
want
step "64 MiB written without osd.1, and all read" "$MIB"
ok timeout 60 "$HOLDFAST" umount "$M" --now
export HOLDFAST_HOME=$W/home-2
ok timeout 300 "$HOLDFAST" recover "$W/kit.txt" v >"$W/recover.out" 2>&1
step "recovered from the kit without osd.1"
mount_volume -o cache_size=64M
(cd "$M" && "$TOOLS/treesum" .) >"$W/got" || fail "reading what was recovered"
diff "$W/want" "$W/got" >/dev/null || fail "the tree that was recovered differs"
step "all read by the new machine without osd.1" "$MIB"
ok hf sync v --protected --timeout 1800 >/dev/null 2>&1
umount_volume
ceph_osd_start s 1
for i in $(seq 600); do
	ceph_ask pg stat | grep -q degraded || break
	sleep 0.5
done
step "osd.1 is back, the cluster has made up for it"
ok hf fsck v --nodes --deep
step "every shard verified" $((MIB * 3 / 2))
echo ok
