# SPDX-License-Identifier: GPL-3.0-or-later
# S3: three buckets of Ceph's gateway with a directory and two WebDAV folders in one drive; what
# S3 servers answer when something is not right; listings of more than one page; recovery.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
server s ceph
for b in one two three; do ceph_bucket s hf-$b; done
server d1 nginx
server d2 apache tls
proxy s
credentials "$W/credentials"
url() { node_url s "hf-$1/some/prefix"; }

answer() { # status, S3's code, more XML
	fault s '{"do":"status","code":'"$1"',"headers":{"Content-Type":"application/xml"'"${4:+,$4}"'},
		"body":"<?xml version=\"1.0\"?><Error><Code>'"$2"'</Code><Message>m</Message>'"${3:-}"'</Error>"}'
}
refused() { # word url
	no 1 hf create x --node "$2" --node "dir:$W/x/2" --node "dir:$W/x/3" --kit "$W/kit-x" \
		--credentials "$W/credentials"
	says "$1"
	[ -e "$HOLDFAST_HOME/x" ] || [ -e "$W/kit-x" ] && fail "a create that failed left something"
	return 0
}
mkdir "$W/x"
refused bucket "$(url nowhere)"
sed "s/^secret_key = .*/secret_key = wrong/" "$W/credentials" >"$W/wrong"
chmod 600 "$W/wrong"
cp "$W/credentials" "$W/right"
cp "$W/wrong" "$W/credentials"
refused 'secret\|signature\|credentials' "$(url one)"
cp "$W/right" "$W/credentials"
answer 400 AuthorizationHeaderMalformed '<Region>eu-west-7</Region>'
refused eu-west-7 "$(url one)"
answer 403 RequestTimeTooSkewed '<ServerTime>2001-01-01T00:00:00Z</ServerTime>'
refused clock "$(url one)"
answer 301 PermanentRedirect '<Endpoint>other.example</Endpoint>' '"Location":"http://other.example/"'
refused other.example "$(url one)"
answer 501 NotImplemented
refused 501 "$(url one)"
fault s
[ "$(s3 s 'hf-one?list-type=2&prefix=some')" = 200 ] && grep -q '<Key>' "$W/s3.out" && fail "a create that failed left an object"

mkdir "$W/n"
ok hf create v --node "$(url one)" --node "$(url two)" --node "$(url three)" --node "dir:$W/n/d" \
	--node "$(node_url d1)" --node "$(node_url d2)" --survive 2 --kit "$W/kit.txt" \
	--credentials "$W/credentials" >"$W/create.out"
mount_volume
make_tree "$M/t" "$SEED"
head -c 40000000 /dev/urandom >"$M/large"
want
ok hf sync v --protected
umount_volume
ok hf fsck v --nodes --deep

# Two whole pages of names before those that matter.
echo x >"$W/junk"
(cd "$W" && s3 s 'hf-one/some/prefix/l/a[1000-3200]' -T junk --parallel --parallel-max 20 >/dev/null 2>&1)
for b in two three; do (cd "$W" && s3 s "hf-$b/some/prefix/l/a[1000-2100]" -T junk --parallel --parallel-max 20 >/dev/null 2>&1); done
forget_requests
mv "$W/n/d" "$W/"
server_stop d1
fresh
same "through S3"
[ "$(requests s 'GET .*continuation-token=.*prefix%2Fl%2F')" -ge 4 ] ||
	{ grep l%2F "$W/srv/s-proxy/requests" | head; fail "no second page was asked for"; }
mv "$W/d" "$W/n/"
server_start d1
until_status '.protected and ([.nodes[] | select(.state != "up" and .state != "slow")] == [])'

# A full account is a state of the node.
fault s '{"do":"status","code":403,"match":"^PUT /hf-two/","body":"<Error><Code>QuotaExceeded</Code><Message>m</Message></Error>"}'
head -c 3000000 /dev/urandom >"$M/more"
ok hf sync v
until_status '[.nodes[] | select(.state == "full") | .url | contains("hf-two")] == [true]'
fault s
until_status .protected 400
umount_volume
exit 0
