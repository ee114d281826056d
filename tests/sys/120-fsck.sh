# SPDX-License-Identifier: GPL-3.0-or-later
# fsck finds what is wrong and changes nothing; a damaged database is rebuilt from the nodes
# and unpublished local files are kept; a newer one is refused.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume
make_tree "$M/t"
ok hf sync v --protected
tree "$M/t" >"$W/want"
umount_volume
ok hf fsck v --nodes --deep
db=$HOLDFAST_HOME/v/meta.db
cp -a "$HOLDFAST_HOME/v" "$W/v.good"
try() { # what sql
	sqlite3 "$db" "$2" || fail "sqlite3: $2"
	cp "$db" "$W/db.before"
	hf fsck v >"$W/fsck" 2>&1 && fail "fsck finds nothing: $1"
	rm -rf "$HOLDFAST_HOME/v" && cp -a "$W/v.good" "$HOLDFAST_HOME/v"
}
try "a link count" "UPDATE inode SET nlink = nlink + 1 WHERE ino = (SELECT max(ino) FROM inode WHERE nlink = 1)"
try "a name without inode" "DELETE FROM inode WHERE ino = (SELECT max(ino) FROM inode WHERE nlink = 1)"
try "an inode without name" "DELETE FROM dirent WHERE lid = (SELECT max(lid) FROM dirent)"
try "an extent without segment" "UPDATE extent SET seg = 999999 WHERE ino = (SELECT max(ino) FROM extent)"
try "an extent beyond its segment" "UPDATE extent SET seg_off = 99999999 WHERE ino = (SELECT max(ino) FROM extent)"
f=$(find "$HOLDFAST_HOME/v/data" -type f -size +100k | head -n 1)
[ "$f" ] || fail "no cache file"
rm "$f"
hf fsck v >/dev/null 2>&1 && fail "fsck does not miss a cache file"
rm -rf "$HOLDFAST_HOME/v" && cp -a "$W/v.good" "$HOLDFAST_HOME/v"
# Newer.
sqlite3 "$db" "PRAGMA user_version = 9999"
no 1 hf mount v "$M"
says newer
rm -rf "$HOLDFAST_HOME/v" && cp -a "$W/v.good" "$HOLDFAST_HOME/v"
# Unpublished bytes, then a damaged database.
mount_volume -o interval=3600
head -c 300000 /dev/urandom >"$M/unpublished"
sum=$(sha256sum <"$M/unpublished")
ok hf umount "$M" --now
dd if=/dev/urandom of="$db" bs=4096 seek=1 count=3 conv=notrunc status=none
no 1 hf mount v "$M"
says "fsck\|rebuild"
ok hf fsck v --rebuild >"$W/rebuild" 2>&1
mount_volume
tree "$M/t" >"$W/got"
diff "$W/want" "$W/got" || fail "rebuilt, but the tree differs"
find "$HOLDFAST_HOME/v" -type f -size +200k -size -2M -print0 | xargs -0 -n 1 sha256sum | grep "${sum%% *}" >/dev/null ||
	fail "the unpublished file is nowhere"
echo goes on >"$M/after"
ok hf sync v
