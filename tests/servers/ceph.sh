# SPDX-License-Identifier: GPL-3.0-or-later
# An S3 server for servers.sh: Ceph's object gateway before one monitor and one OSD, which keeps
# its objects in memory or, with the option `disk`, in a file.  It takes a quarter of a minute to
# start, so a test starts one and makes several buckets in it: ceph_bucket NAME BUCKET.

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
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 2
mon_data_avail_crit = 1
debug_none = 0/0
debug_ms = 0/0
debug_mon = 0/1
debug_paxos = 0/0
debug_rgw = 0/1
[mon.a]
mon_data = $d/mon
mon_memory_autotune = false
[osd]
osd_data = $d/osd
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
C
}
ceph_cli() { # name, then commands on standard input
	timeout 60 "${srv_as[@]}" ceph -c "$W/srv/$1/conf" --connect-timeout 20 >>"$W/srv/$1/cli.out" 2>&1
}
ceph_make() { # name
	local d=$W/srv/$1 u k monport args=(--create-keyring)
	for k in ceph-mon ceph-osd radosgw radosgw-admin ceph monmaptool; do have $k; done
	mkdir -p "$d/mon" "$d/osd" "$d/rgw"
	cat /proc/sys/kernel/random/uuid >"$d/fsid"
	u=$(cat /proc/sys/kernel/random/uuid)
	free_port
	monport=$port
	ceph_conf "$1" "$monport" >"$d/conf"
	(
		umask 077
		key() { ceph-authtool "${args[@]}" "$d/keyring" --gen-key -n "$@" >/dev/null; args=(); }
		key mon. --cap mon 'allow *'
		key client.admin --cap mon 'allow *' --cap osd 'allow *'
		key client.rgw.a --cap mon 'allow rw' --cap osd 'allow rwx'
		key osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
	)
	monmaptool --create --fsid "$(cat "$d/fsid")" --addv a "[v2:127.0.0.1:$monport]" "$d/monmap" >/dev/null 2>&1
	srv_own "$d"
	timeout 60 "${srv_as[@]}" ceph-mon -c "$d/conf" --mkfs -i a --monmap "$d/monmap" \
		--keyring "$d/keyring" >"$d/mkfs.out" 2>&1 || { tail "$d/mkfs.out"; fail "no monitor"; }
	srv_spawn "$1" mon ceph-mon -c "$d/conf" -i a -f
	timeout 60 "${srv_as[@]}" ceph-osd -c "$d/conf" -i 0 --mkfs --osd-uuid "$u" \
		--monmap "$d/monmap" >>"$d/mkfs.out" 2>&1 || { tail "$d/mkfs.out"; fail "no OSD"; }
	printf '%s\n' "osd new $u 0" "osd crush add 0 1.0 root=default host=h" | ceph_cli "$1" ||
		{ tail "$d"/*.out; fail "the monitor does not answer"; }
}
ceph_start() { # name
	local d=$W/srv/$1 fresh=
	[ -e "$d/conf" ] || { fresh=1; ceph_make "$1"; }
	[ "$fresh" ] || srv_spawn "$1" mon ceph-mon -c "$d/conf" -i a -f
	srv_spawn "$1" osd ceph-osd -c "$d/conf" -i 0 -f
	srv_spawn "$1" rgw radosgw -c "$d/conf" -n client.rgw.a -f --rgw-frontends "beast endpoint=127.0.0.1:${srv_port[$1]}"
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
		"http://127.0.0.1:${srv_port[$name]}/$path"
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
