# SPDX-License-Identifier: GPL-3.0-or-later
# recover takes the drive over: the earlier machine notices before it publishes, says so, and
# keeps its local bytes; so does a state directory restored from an old copy.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume
echo one >"$M/one"
ok hf sync v
umount_volume
cp -a "$HOLDFAST_HOME" "$W/old-copy"
mount_volume
echo two >"$M/two"
ok hf sync v
# An old copy of the state directory.
HOLDFAST_HOME=$W/old-copy
mkdir "$W/m-old"
ok hf mount v "$W/m-old"
echo stale >"$W/m-old/stale"
hf sync v --timeout 60 2>"$W/err" && fail "an old copy of the state published"
says "older than"
ok hf umount "$W/m-old" --now
export HOLDFAST_HOME=$W/home
echo three >"$M/three"
ok hf sync v
echo unpublished >"$M/unpublished"
# Another machine takes over while this one is mounted.
mkdir "$W/m2"
HOLDFAST_HOME=$W/home2 ok hf recover "$W/kit.txt" v >/dev/null 2>&1
HOLDFAST_HOME=$W/home2 ok hf mount v "$W/m2"
eq "$(cat "$W/m2/three")" three
echo "from two" >"$W/m2/from-two"
HOLDFAST_HOME=$W/home2 ok hf sync v
echo late >"$M/late"
hf sync v --timeout 60 2>"$W/err" && fail "the earlier machine still publishes"
says "another\|taken\|recovered"
eq "$(cat "$M/late")" late "the earlier machine keeps its bytes"
hf status v | grep -i "another machine\|taken over\|recovered" >/dev/null || { hf status v; fail "status does not say it"; }
hf umount "$M" || hf umount "$M" --now || fail "umount of the earlier machine"
mount_volume
eq "$(cat "$M/late")" late
ok hf umount "$M" --now
HOLDFAST_HOME=$W/home2 ok hf umount "$W/m2"
# A third one sees the second's state, not the first's.
export HOLDFAST_HOME=$W/home3
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
eq "$(cat "$M/from-two")" "from two"
[ -e "$M/late" ] && fail "the retired machine's unpublished file appeared"
[ -e "$M/stale" ] && fail "the stale copy's file appeared"
exit 0
