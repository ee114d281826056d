# SPDX-License-Identifier: GPL-3.0-or-later
# As 220, where one of the two is a bucket of Ceph's gateway, in a drive of a bucket, three
# WebDAV folders and two directories.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/servers/drive.sh"
. "$ROOT/tests/servers/faults.sh"
words=("$@")
server s ceph disk
ceph_bucket s drive
server d1 nginx
server d2 apache tls
server d3 lighttpd digest
for n in s d1 d2 d3; do proxy $n; done
mkdir "$W/n"
new_drive s d1 d2 d3 "dir:$W/n/1" "dir:$W/n/2"
mount_volume
make_tree "$M/t" "$SEED"
ok hf sync v --protected
# The key is another one at the gateway.
kind password 'refusing' 'secret key|credentials of profile'

pair refuse s corrupt d2
pair hang s refuse d1
pair password s truncated d3
pair corrupt s hang d2
pair truncated s midbody d1
pair crash s hang d3

ok hf sync v --protected
want
umount_volume
ok hf fsck v --nodes --deep
# What was repaired on the bucket is really there.
mv "$W/n/1" "$W/"
server_stop d1
fresh
same "without d1 and a directory"
exit 0
