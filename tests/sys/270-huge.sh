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
MIB=40
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
# What a node got since the drive was mounted.
uploaded() { hf status v --json | jq .nodes[0].uploaded; }
again() { umount_volume && mount_volume "${opts[@]}"; }
# Killed in the middle and mounted again: what the database knew then of what is stored, and what
# a node gets after it.
interrupted() { # prefix, forget: nothing of it is known afterwards
	local was
	was=$(blobs)
	image
	smalls "$1"
	until_sent $((was + SENT))
	kill_volume
	stored=$(python3 - "$HOLDFAST_HOME/v/meta.db" "${2:-}" <<-P
		import sqlite3, sys
		db = sqlite3.connect(sys.argv[1])
		print(db.execute("SELECT coalesce(sum(len),0) FROM ahead").fetchone()[0])
		if sys.argv[2]:
		    db.execute("DELETE FROM ahead")
		db.commit()
	P
	) || fail "the database"
	mount_volume "${opts[@]}"
	ok hf sync v
	cmp "$W/image" "$M/images/huge" || fail "the image is damaged"
	sent=$(uploaded)
}

# One that nothing interrupts, to compare with.
again
image
ok hf sync v
whole=$(uploaded)
interrupted first
echo "of $whole bytes a node gets for $MIB MiB: $sent where $stored of the file were stored"
[ "$stored" -ge $((MIB * 1048576 / 4)) ] || fail "only $stored bytes were known as stored"
share=$((whole * stored / (MIB * 1048576)))
[ "$sent" -le $((whole - share + whole / 10)) ] || fail "what was sent is sent again"
interrupted again forget
echo "forgotten: $sent"
[ "$sent" -ge $((whole - whole / 10)) ] || fail "control: nothing was known, and not all was sent"

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
