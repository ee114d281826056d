# SPDX-License-Identifier: GPL-3.0-or-later
# S3 over https with an authority of the test's own, the bucket before the host (style=virtual)
# and in the path: who does not trust the authority, or the name, is refused; then a drive of
# both styles, data deleted, recovery from the kit, a bucket emptied and another in its place,
# another secret key while it is mounted.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
server s ceph tls
buckets="one two three four"
for b in $buckets; do ceph_bucket s "hf-$b"; done
credentials "$W/credentials"
virtual() { node_url s "hf-$1/some/prefix" style=virtual; }
objects() { # bucket prefix
	[ "$(s3 s "hf-$1?list-type=2&prefix=some%2Fprefix%2F$2")" = 200 ] || fail "no list of hf-$1"
	grep -o '<Key>' "$W/s3.out" | wc -l
}
refused() { # word url
	no 1 hf create x --node "$2" --node "dir:$W/x/2" --node "dir:$W/x/3" --kit "$W/kit-x" \
		--credentials "$W/credentials"
	says "$1"
	[ -e "$HOLDFAST_HOME/x" ] || [ -e "$W/kit-x" ] && fail "a create that failed left something"
	return 0
}
mkdir "$W/x" "$W/n"
[[ $(virtual one) == s3+https://s3.localhost:* ]] || fail "$(virtual one)"
refused certificate "$(virtual one | sed 's/&ca=[^&]*//')"
# The certificate is for *.s3.localhost.
refused certificate "$(virtual one | sed 's/s3\.localhost/other.localhost/')"
refused bucket "$(virtual nowhere)"
sed "s/^secret_key = .*/secret_key = wrong/" "$W/credentials" >"$W/right"
mv "$W/credentials" "$W/wrong"
mv "$W/right" "$W/credentials"
chmod 600 "$W/credentials"
refused 'secret\|signature\|credentials' "$(virtual one)"
mv "$W/wrong" "$W/credentials"
for b in $buckets; do eq "$(objects "$b" "")" 0 "a create that failed left an object in hf-$b"; done

ok hf create v --node "$(virtual one)" --node "$(virtual two)" --node "$(virtual three)" \
	--node "$(node_url s hf-four/some/prefix)" --node "dir:$W/n/1" --node "dir:$W/n/2" \
	--survive 2 --kit "$W/kit.txt" --credentials "$W/credentials" >"$W/create.out"
HOLDFAST_PACE=grace=100 mount_volume -o interval=1
make_tree "$M/t" "$SEED"
head -c 40000000 /dev/urandom >"$M/large"
head -c 20000000 /dev/urandom >"$M/gone"
ok hf sync v --protected
for b in $buckets; do [ "$(objects "$b" s%2F)" -ge 3 ] || fail "no shards in hf-$b"; done
hf status v --json | jq -e '[.nodes[] | select(.state != "up" and .state != "slow")] == []' >/dev/null ||
	{ hf status v; fail "a node is not well"; }

# What is deleted goes from the buckets.
before=$(objects one s%2F)
rm "$M/gone"
want
ok hf sync v
for i in $(seq 300); do
	[ "$(objects one s%2F)" -ge "$before" ] || break
	sleep 0.2
done
[ "$(objects one s%2F)" -lt "$before" ] || fail "nothing was deleted from hf-one"
ok hf sync v --protected
umount_volume
ok hf fsck v --nodes --deep

# Both directories are gone: all comes from the buckets, four of six, listed and read over TLS.
mv "$W/n" "$W/n.away"
fresh
same "from the buckets"
ok hf umount "$M" --now
mv "$W/n.away" "$W/n"
# And a bucket is gone for good, with a directory away as well.
s3 s "hf-two?list-type=2&max-keys=1000" >/dev/null
for k in $(grep -o '<Key>[^<]*' "$W/s3.out" | cut -c6-); do s3 s "hf-two/$k" -X DELETE >/dev/null; done
mv "$W/n/1" "$W/"
fresh
same "without what hf-two had"
mv "$W/1" "$W/n/"
until_status '.nodes[1].error | contains("emptied")'
ceph_bucket s hf-five
ok hf node replace v node-2 "$(virtual five)" 2>/dev/null >&2
until_status .protected 400
[ "$(objects five s%2F)" -ge 3 ] || fail "no shards in hf-five"
# Another secret key, given to the mounted drive.
srv_pass[s]=another-secret-key
server_password s "${srv_pass[s]}"
echo new >"$M/new-key"
until_status '[.nodes[] | select(.state == "refusing")] | length == 4'
credentials "$W/credentials"
ok hf credentials v "$W/credentials" >/dev/null
until_status '[.nodes[].state] | all(. == "up" or . == "slow")'
ok hf sync v --protected
umount_volume
exit 0
