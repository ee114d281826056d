# SPDX-License-Identifier: GPL-3.0-or-later
# A huge file on its way over slow links: small files are published meanwhile, each as soon as
# its own fsync wants it; after kill -9 the upload goes on and what was sent is not sent again;
# a machine that takes over in the middle finds the small files and the huge one as it was.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
names=(n1 n2 n3 n4 n5 n6)
for n in "${names[@]}"; do server $n nginx; done
new_drive "${names[@]}"
# 4-of-6: two thirds of it carry contents.
opts=(-o "interval=1,fsync=remote,upload_limit=3M")
mount_volume "${opts[@]}"
MIB=48
SENT=4 # segments on a node when the daemon is killed
mkdir "$M/images" "$M/docs"
echo "the image before" >"$M/images/huge"
ok hf sync v

blobs() { find "$(server_data n1)" -type f -path '*/s/*' | wc -l; }
unpublished() { hf status v --json | jq .unpublished.bytes; }
# A new image over the old one; nobody fsyncs it.
image() {
	head -c $((MIB * 1048576)) /dev/urandom >"$W/image"
	cat "$W/image" >"$M/images/huge" || fail "no image"
}
# Each fsync returns when its file is published: before the image is.
smalls() { # prefix
	local i
	for i in 1 2 3; do
		head -c $((i * 3000)) /dev/urandom >"$W/$1$i"
		dd if="$W/$1$i" of="$M/docs/$1$i" conv=fsync status=none || fail "fsync of $1$i"
		[ "$(unpublished)" -gt 1048576 ] || fail "$1$i waited for the image"
	done
}
until_sent() { # blobs on the node
	local i
	for i in $(seq 1200); do
		[ "$(blobs)" -ge "$1" ] && return
		sleep 0.05
	done
	fail "only $(blobs) of $1 segments arrived"
}
# Killed in the middle and mounted again: how many segments came to a node in all.
interrupted() { # prefix, forget: nothing of what was sent is known afterwards
	local was
	was=$(blobs)
	image
	smalls "$1"
	until_sent $((was + SENT))
	kill_volume
	[ "${2:-}" ] && {
		python3 - "$HOLDFAST_HOME/v/meta.db" <<P || fail "the database"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute("DELETE FROM ahead").rowcount > 0
db.commit()
P
	}
	mount_volume "${opts[@]}"
	ok hf sync v
	cmp "$W/image" "$M/images/huge" || fail "the image is damaged"
	came=$(($(blobs) - was))
}

interrupted first
echo "resumed: $came segments for $MIB MiB"
resumed=$came
interrupted again forget
echo "forgotten: $came segments for $MIB MiB"
# Two are in flight when it is killed, and a third may be there: the others make the difference.
[ "$came" -ge $((resumed + SENT - 2)) ] || fail "what was sent is sent again"

# The machine burns down with half of the next image sent.
cp "$W/image" "$W/old"
was=$(blobs)
image
smalls last
until_sent $((was + 2))
[ "$(unpublished)" -gt 1048576 ] || fail "the image was faster"
kill_volume
fresh
cmp "$W/old" "$M/images/huge" || fail "the image is not as it was"
for i in 1 2 3; do
	for n in first again last; do
		cmp "$W/$n$i" "$M/docs/$n$i" || fail "$n$i is not there"
	done
done
exit 0
