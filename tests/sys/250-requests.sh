# SPDX-License-Identifier: GPL-3.0-or-later
# What a drive asks of its nodes, counted by the proxies before them: a full segment is one
# request a node, a commit a constant, a small cold read one.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
names=(n1 n2 n3 n4 n5 n6)
server n1 nginx
server n2 lighttpd
server n3 nginx
server n4 lighttpd
server n5 nginx
server n6 apache
for n in "${names[@]}"; do proxy $n; done
new_drive "${names[@]}"
mount_volume -o interval=3600
count() { local n c=0; for n in "${names[@]}"; do c=$((c + $(requests $n "${1:-.*}"))); done; echo $c; }
show() { local n; for n in "${names[@]}"; do sed "s/^/$n /" "$W/srv/$n-proxy/requests"; done | grep '>' | sed 's/[a-z2-7]\{32\}/NAME/' | sort | uniq -c; }

echo first >"$M/first"
ok hf sync v --protected
forget_requests
echo second >"$M/second"
ok hf sync v --protected
# Not counted: the marker, which is read every few seconds, and folders, which are made once.
all() { echo $(($(count) - $(count 'GET /drive/v/node') - $(count 'MKCOL .*'))); }
commit=$(all)
echo "a commit: $commit requests"
[ "$commit" -le 36 ] || { show; fail "$commit requests for a small commit"; }

for segments in 1 8; do
	forget_requests
	head -c $((segments * 16777216)) /dev/urandom >"$M/large-$segments"
	ok hf sync v --protected
	puts=$(count 'PUT .*/s/.*')
	all=$(all)
	echo "$segments segments: $puts shards put, $all requests"
	[ "$puts" -le $(((segments + 1) * 6)) ] || { show; fail "$puts shards put for $segments segments"; }
	# A large file is stored ahead of the commit that names it, so there may be two commits.
	[ "$all" -le $(((segments + 1) * 6 + 72)) ] || { show; fail "$all requests for $segments segments"; }
done
for g in 1 2 3; do
	mkdir "$M/group-$g"
	for i in $(seq 20); do head -c 3000 /dev/urandom >"$M/group-$g/$i"; done
	head -c 100000 /dev/urandom >"$M/pad"
	ok hf sync v --protected
	cat "$M/group-$g"/* | sha256sum >"$W/sum-$g"
done

fresh -o interval=3600
until_status .protected
sleep 1
# A node that is late (a busy machine is enough) is not waited for: others are asked besides.  So
# each is done some times, and most of them are without that.
ones=()
for i in 0 1 2 3 4; do
	forget_requests
	dd if="$M/large-8" bs=4096 skip=$((i * 4096)) count=1 status=none >/dev/null
	ones+=("$(count 'GET .*/s/.*')")
done
echo "small cold reads: ${ones[*]} requests"
[ "$(printf '%s\n' "${ones[@]}" | sort -n | sed -n '1p;4p' | xargs)" = "1 1" ] ||
	{ show; fail "${ones[*]} requests for a small cold read"; }
smalls=()
for g in 1 2 3; do
	forget_requests
	eq "$(cat "$M/group-$g"/* | sha256sum)" "$(cat "$W/sum-$g")"
	smalls+=("$(count 'GET .*/s/.*')")
done
echo "20 small files of one segment: ${smalls[*]} requests"
# Three, and then the rest of the segment: a request for each of its four data shards.
[ "$(printf '%s\n' "${smalls[@]}" | sort -n | sed -n 2p)" -le 7 ] ||
	{ show; fail "${smalls[*]} requests for 20 neighbours"; }
# The control: a node that loses its answers costs more, and the count shows it.
forget_requests
fault n1 '{"do":"lostack","match":"^PUT"}'
head -c 16777216 /dev/urandom >"$M/large-1"
ok hf sync v
until_node n1 '(.error // "") != ""'
[ "$(requests n1 'PUT .*')" -ge 2 ] || fail "the proxies do not count"
fault n1
exit 0
