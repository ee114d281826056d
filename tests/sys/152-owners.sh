# SPDX-License-Identifier: GPL-3.0-or-later
# A drive from a machine where users have other numbers: uid=, gid=, umask=, and permissions
# enforced among several users.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip "needs root to become several users"
have setpriv
have setfacl
chmod 755 "$W"
as() { local u=$1; shift; setpriv --reuid "$u" --regid "$u" --clear-groups "$@"; }
denied() { as "$@" 2>/dev/null && fail "user $1 could: ${*:2}"; return 0; }
owner() { eq "$(stat -c %u:%g "$1")" "$2" "$1"; }
mode() { eq "$(stat -c %a "$1")" "$2" "$1"; }
new_volume
mount_volume -o interval=1
chmod 755 "$M"
mkdir "$M/a" "$M/b"
chown 12001:12001 "$M/a"
chown 12002:12002 "$M/b"
echo secret >"$M/a/f" && chown 12001:12001 "$M/a/f" && chmod 600 "$M/a/f"
echo shared >"$M/a/list" && chown 12001:12001 "$M/a/list" && chmod 600 "$M/a/list"
setfacl -m u:12002:rw "$M/a/list"
cp /bin/true "$M/a/prog" && chown 12001:12001 "$M/a/prog" && chmod 6755 "$M/a/prog"

echo "as it is: modes and lists decide"
eq "$(as 12001 cat "$M/a/f")" secret
denied 12002 cat "$M/a/f"
denied 12002 touch "$M/a/x"
denied 12003 cat "$M/a/list"
eq "$(as 12002 cat "$M/a/list")" shared
denied 12001 chown 12002 "$M/a/f"
umount_volume

echo "mapped: 12001 of the drive is 12011 here"
mount_volume -o interval=1,uid=12001:12011,gid=12001:12011,uid=12002:12012
owner "$M/a" 12011:12011
owner "$M/b" 12012:12002
owner "$M" 0:0
eq "$(as 12011 cat "$M/a/f")" secret
denied 12001 cat "$M/a/f"
eq "$(as 12012 cat "$M/a/list")" shared
denied 12002 cat "$M/a/list"
getfacl -n "$M/a/list" 2>/dev/null | grep -qx user:12012:rw- || fail "the list is not translated"
setfacl -m u:12001:r "$M/a/list"
as 12011 sh -c "echo made >'$M/a/made'; mkdir '$M/a/dir'" || fail "12011 could not"
owner "$M/a/made" 12011:12011
chmod 777 "$M/b"
as 12001 touch "$M/b/twelve-one"
owner "$M/b/twelve-one" 12001:12001
chown 12012 "$M/a/dir"
owner "$M/a/dir" 12012:12011
umount_volume
mount_volume -o interval=1
owner "$M/a/made" 12001:12001
owner "$M/a/dir" 12002:12001
owner "$M/b/twelve-one" 12011:12011
getfacl -n "$M/a/list" 2>/dev/null | grep -qx user:12011:r-- || fail "the list is not translated back"
getfacl -n "$M/a/list" 2>/dev/null | grep -qx user:12002:rw- || fail "the list lost a user"
umount_volume

echo "squashed: everything is 12003's"
mount_volume -o interval=1,uid=12003,gid=12003
owner "$M/a/f" 12003:12003
mode "$M/a/prog" 755
eq "$(as 12003 cat "$M/a/f")" secret
denied 12001 cat "$M/a/f"
as 12003 sh -c "echo new >'$M/a/squashed'; chmod 640 '$M/a/squashed'" || fail "12003 could not"
owner "$M/a/squashed" 12003:12003
ok chown 12003:12003 "$M/a/f"
chown 12001 "$M/a/f" 2>/dev/null && fail "an owner that cannot be was set"
chmod 755 "$M/a/prog"
umount_volume

echo "masked: permissions are this machine's"
mount_volume -o interval=1,uid=12003,umask=027
mode "$M/a" 750
mode "$M/a/f" 640
mode "$M/a/prog" 750
eq "$(as 12003 cat "$M/a/f")" secret
denied 12002 ls "$M/a"
getfattr -d -m - "$M/a/list" 2>/dev/null | grep -q posix_acl && fail "a list that is not in force is shown"
as 12003 sh -c "umask 0; echo new >'$M/a/masked'; cp -p '$M/a/list' '$M/a/copy'" || fail "12003 could not"
mode "$M/a/masked" 640
ok chmod +x "$M/a/f"
mode "$M/a/f" 750
ok chmod 644 "$M/a/f"
mode "$M/a/f" 640
umount_volume

mount_volume -o interval=1
owner "$M/a/squashed" 12001:12001
mode "$M/a/squashed" 640
owner "$M/a/f" 12001:12001
mode "$M/a/f" 600
mode "$M/a/masked" 666
mode "$M/a/prog" 6755
getfacl -n "$M/a/list" 2>/dev/null | grep -qx user:12002:rw- || fail "a hidden list is lost"
umount_volume

for o in uid=x uid= uid=1:2:3 uid=1,uid=2 uid=1,uid=2:3 uid=1:2,uid=1:3 gid=-1 umask=9 umask= umask=1000; do
	no 2 hf mount v "$M" -o "$o"
done
