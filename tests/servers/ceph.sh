# SPDX-License-Identifier: GPL-3.0-or-later
# An S3 server for servers.sh: Ceph's object gateway before one monitor and one OSD, which keeps
# its objects in memory or, with the option `disk`, in a file.  It takes a quarter of a minute to
# start, so a test starts one and makes several buckets in it: ceph_bucket NAME BUCKET.  It takes
# requests to BUCKET.s3.localhost as well, which resolves to loopback wherever localhost does.
#
# osds=N    that many OSDs; what the gateway itself keeps is on all of them
# ec=K,M    the objects in the buckets are erasure-coded over the OSDs

ceph_osds() { srv_value "$1" osds 1; }
ceph_conf() { # name
	local d=$W/srv/$1 store=memstore
	srv_opt "$1" disk && store=bluestore
	cat <<C
[global]
fsid = $(cat "$d/fsid")
mon_host = [v2:127.0.0.1:$2]
mon_initial_members = a
keyring = $d/keyring
auth_allow_insecure_global_id_reclaim = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
ms_bind_port_min = 23000
ms_bind_port_max = 23999
ms_async_op_threads = 1
run_dir = $d
admin_socket =
log_file = $d/\$name.log
crash_dir = $d/crash
osd_pool_default_size = $(ceph_osds "$1")
osd_pool_default_min_size = 1
osd_pool_default_pg_num = $(ceph_osds "$1")
osd_pool_default_pgp_num = $(ceph_osds "$1")
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 2
mon_data_avail_crit = 1
mon_osd_min_down_reporters = 1
mon_osd_adjust_heartbeat_grace = false
osd_heartbeat_grace = 8
debug_none = 0/0
debug_ms = 0/0
debug_mon = 0/1
debug_paxos = 0/0
debug_rgw = 0/1
[mon.a]
mon_data = $d/mon
mon_memory_autotune = false
[osd]
osd_data = $d/osd\$id
osd_objectstore = $store
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
bluestore_block_size = 4294967296
bluestore_block_create = true
bluestore_block_db_create = false
bluestore_block_wal_create = false
bluestore_fsck_on_mount = false
bdev_enable_discard = false
memstore_device_bytes = 4294967296
osd_op_num_threads_per_shard = 1
osd_op_num_shards = 2
osd_crush_update_on_start = false
osd_class_update_on_start = false
[client]
rgw_thread_pool_size = 64
rgw_data = $d/rgw
rgw_dns_name = s3.localhost
C
}
ceph_cli() { # name, then commands on standard input
	timeout 180 "${srv_as[@]}" ceph -c "$W/srv/$1/conf" --connect-timeout 120 >>"$W/srv/$1/cli.out" 2>&1
}
ceph_make() { # name
	local d=$W/srv/$1 u k i monport ec cmds='' args=(--create-keyring)
	for k in ceph-mon ceph-osd radosgw radosgw-admin ceph monmaptool; do have $k; done
	mkdir -p "$d/mon" "$d/rgw"
	for i in $(ceph_each "$1"); do mkdir -p "$d/osd$i"; done
	cat /proc/sys/kernel/random/uuid >"$d/fsid"
	free_port
	monport=$port
	ceph_conf "$1" "$monport" >"$d/conf"
	(
		umask 077
		key() { ceph-authtool "${args[@]}" "$d/keyring" --gen-key -n "$@" >/dev/null; args=(); }
		key mon. --cap mon 'allow *'
		key client.admin --cap mon 'allow *' --cap osd 'allow *'
		key client.rgw.a --cap mon 'allow rw' --cap osd 'allow rwx'
		for i in $(ceph_each "$1"); do key "osd.$i" --cap mon 'allow profile osd' --cap osd 'allow *'; done
	)
	monmaptool --create --fsid "$(cat "$d/fsid")" --addv a "[v2:127.0.0.1:$monport]" "$d/monmap" >/dev/null 2>&1
	srv_own "$d"
	timeout 180 "${srv_as[@]}" ceph-mon -c "$d/conf" --mkfs -i a --monmap "$d/monmap" \
		--keyring "$d/keyring" >"$d/mkfs.out" 2>&1 || { tail "$d/mkfs.out"; fail "no monitor"; }
	srv_spawn "$1" mon ceph-mon -c "$d/conf" -i a -f
	for i in $(ceph_each "$1"); do
		u=$(cat /proc/sys/kernel/random/uuid)
		timeout 180 "${srv_as[@]}" ceph-osd -c "$d/conf" -i "$i" --mkfs --osd-uuid "$u" \
			--monmap "$d/monmap" >>"$d/mkfs.out" 2>&1 || { tail "$d/mkfs.out"; fail "no OSD"; }
		cmds+="osd new $u $i"$'\n'"osd crush add $i 1.0 root=default host=h"$'\n'
	done
	ec=$(srv_value "$1" ec)
	[ -z "$ec" ] || cmds+="osd erasure-code-profile set node k=${ec%,*} m=${ec#*,} crush-failure-domain=osd
osd pool create default.rgw.buckets.data 16 16 erasure node
osd pool application enable default.rgw.buckets.data rgw
"
	ceph_cli "$1" <<<"$cmds" || { tail "$d"/*.out; fail "the monitor does not answer"; }
}
ceph_each() { seq 0 $(($(ceph_osds "$1") - 1)); }
ceph_osd_start() { srv_spawn "$1" "osd$2" ceph-osd -c "$W/srv/$1/conf" -i "$2" -f; }
# kill -9; the monitor has noticed it when this returns.
ceph_osd_crash() { # name number
	local f=$W/srv/$1/osd$2.run i
	kill -9 -- "-$(cat "$f")" || fail "osd.$2 does not run"
	rm "$f"
	for i in $(seq 300); do
		echo "osd tree down" | timeout 180 "${srv_as[@]}" ceph -c "$W/srv/$1/conf" 2>/dev/null |
			grep -q "osd\\.$2 " && return
		sleep 0.2
	done
	fail "the monitor does not notice that osd.$2 is gone"
}
ceph_start() { # name
	local d=$W/srv/$1 i fresh='' front="beast endpoint=127.0.0.1:${srv_port[$1]}"
	[ -e "$d/conf" ] || { fresh=1; ceph_make "$1"; }
	[ "$fresh" ] || srv_spawn "$1" mon ceph-mon -c "$d/conf" -i a -f
	for i in $(ceph_each "$1"); do ceph_osd_start "$1" "$i"; done
	! srv_opt "$1" tls || front="beast ssl_endpoint=127.0.0.1:${srv_port[$1]} ssl_certificate=$W/srv/tls/cert.pem ssl_private_key=$W/srv/tls/key.pem"
	srv_spawn "$1" rgw radosgw -c "$d/conf" -n client.rgw.a -f --rgw-frontends "$front"
	srv_answers "$1" 1200 || { tail -n 5 "$d"/*.log "$d"/*.out; fail "no S3 server"; }
	[ "$fresh" ] || return 0
	srv_user[$1]=ACCESS$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')
	"${srv_as[@]}" radosgw-admin -c "$d/conf" user create --uid=node --display-name=node \
		--access-key="${srv_user[$1]}" --secret-key="${srv_pass[$1]}" >>"$d/cli.out" 2>&1 ||
		{ tail "$d/cli.out"; fail "no user"; }
}
# The access key has this secret from now on.
ceph_key() { # name secret
	"${srv_as[@]}" radosgw-admin -c "$W/srv/$1/conf" key create --uid=node --key-type=s3 \
		--access-key="${srv_user[$1]}" --secret-key="${2// /-}" >>"$W/srv/$1/cli.out" 2>&1 ||
		{ tail "$W/srv/$1/cli.out"; fail "no other key"; }
}
# s3 NAME PATH [curl's options]: a signed request; prints the answer's status.
s3() {
	local name=$1 path=$2
	shift 2
	(umask 077; echo "machine 127.0.0.1 login ${srv_user[$name]} password ${srv_pass[$name]}" >"$W/srv/$name-netrc")
	curl -qs -m 30 --noproxy '*' -o "$W/s3.out" -w '%{http_code}' --netrc-file "$W/srv/$name-netrc" \
		--aws-sigv4 aws:amz:us-east-1:s3 -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$@" \
		--cacert "$W/srv/tls/ca.pem" "$(srv_scheme "$name")://127.0.0.1:${srv_port[$name]}/$path"
}
# A bucket that takes objects: the first requests make the pools.
ceph_bucket() { # name bucket
	local i
	for i in $(seq 100); do
		[[ $(s3 "$1" "$2" -X PUT) == @(200|409) ]] &&
			[ "$(s3 "$1" "$2/first" -T "$W/srv/$1/fsid")" = 200 ] && [ "$(s3 "$1" "$2/first" -X DELETE)" = 204 ] && return
		sleep 0.2
	done
	cat "$W/s3.out"
	fail "no bucket $2"
}
