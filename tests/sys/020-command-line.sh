# SPDX-License-Identifier: GPL-3.0-or-later
# The command line as a contract: exit statuses, one line of error, bad input changes nothing.
. "$(dirname "$0")/lib.sh"
hf --version | grep '^holdfast ' >/dev/null || fail "--version"
hf --help >/dev/null || fail "--help"
for c in create mount umount status sync recover node credentials scrub repair fsck kit; do
	hf $c --help | grep -i usage >/dev/null || fail "$c --help"
done
hf >/dev/null || fail "no command: the list"
no 2 hf frobnicate
no 2 hf create
no 2 hf create v --frobnicate
no 2 hf mount v
no 2 hf create "bad/name"
no 2 hf create ""
no 2 hf create .hidden
no 2 hf create v --survive 0
no 2 hf create v --survive x
no 2 hf create v --node dir:relative
no 2 hf create v --node "nonsense:/x" --node "dir:$W/1" --node "dir:$W/2"
no 2 hf create v --node "dir:$W/1" --node "dir:$W/1" --node "dir:$W/2"
no 2 hf create v --node "dir:$W/1" --node "dir:$W/2" --node "dir:$W/../$(basename "$W")/2"
no 1 hf create v --passphrase-file /nonexistent
: >"$W/empty" && chmod 600 "$W/empty"
no 1 hf create v --passphrase-file "$W/empty"
no 1 hf mount nothing "$M"
says nothing
no 1 hf status nothing
no 1 hf sync nothing
no 1 hf fsck nothing
no 1 hf umount "$M"
no 1 hf recover /nonexistent r
[ -e "$HOLDFAST_HOME/v" ] && fail "a refused create left something"
[ -e "$W/1" ] && fail "a refused create left a node"

new_volume
no 1 hf create v --node "dir:$W/x1" --node "dir:$W/x2" --node "dir:$W/x3"
says exists
mkdir "$W/other"
no 1 hf create w --node "dir:$W/n/1" --node "dir:$W/n/2" --node "dir:$W/n/3" --kit "$W/kit2"
no 1 hf mount v "$W/absent"
no 1 hf mount v "$W/kit.txt"
mkdir "$W/full" && touch "$W/full/x"
no 1 hf mount v "$W/full"
says empty
no 2 hf mount v "$M" -o frobnicate
says frobnicate
no 2 hf mount v "$M" -o strictatime
says "relatime"
no 2 hf mount v "$M" -o rw,sync
says "fsync=remote"
no 2 hf mount v "$M" -o cache_size=lots
echo wrong >"$W/wrong" && chmod 600 "$W/wrong"
no 1 hf mount v "$M" --passphrase-file "$W/wrong"
says passphrase
mountpoint -q "$M" && fail "mounted with a wrong passphrase"
ok hf node list v --json >"$W/nodes"
ok jq -e 'length == 6 or (.nodes | length) == 6' "$W/nodes" >/dev/null
hf status --json | jq -e . >/dev/null || fail "status of all volumes"
# No passphrase: a key file instead.
ok hf create np --no-passphrase --kit "$W/kit-np" >/dev/null
HOLDFAST_PASSPHRASE_FILE='' ok hf mount np "$M" </dev/null
echo x >"$M/x"
ok hf umount "$M"
# fstab's way.
ln -s "$HOLDFAST" "$W/mount.fuse.holdfast"
ok "$W/mount.fuse.holdfast" v "$M" -o rw,noatime,nostrictatime,lazytime,_netdev,x-systemd.automount,cache_size=2G
mountpoint -q "$M" || fail "mount.fuse.holdfast"
ok hf umount "$M"
ok "$W/mount.fuse.holdfast" v "$M" -o ro
touch "$M/x" 2>/dev/null && fail "wrote to a read-only mount"
if [ "$(id -u)" -eq 0 ]; then
	no 1 "$W/mount.fuse.holdfast" v "$M" -o remount,rw
	says "mounted read-only"
fi
ok hf umount "$M"
# mount -a takes for mounted what has the source that fstab gives; remount repeats what is shown.
ok "$W/mount.fuse.holdfast" holdfast:v "$M"
eq "$(findmnt -no SOURCE "$M")" holdfast:v
if [ "$(id -u)" -eq 0 ]; then
	remount() { ok "$W/mount.fuse.holdfast" holdfast:v "$M" -o "$1,$(findmnt -no OPTIONS "$M" | sed 's/^r[wo],//')"; }
	remount remount,ro
	touch "$M/x" 2>/dev/null && fail "wrote after remount,ro"
	remount remount,rw
	ok touch "$M/x"
	exec 5>>"$M/x"
	no 1 "$W/mount.fuse.holdfast" v "$M" -o remount,ro
	says "open for writing"
	exec 5>&-
	ok hf umount "$M"
	no 1 "$W/mount.fuse.holdfast" v "$M" -o remount,ro
	says "not mounted"
else
	no 2 "$W/mount.fuse.holdfast" v "$M" -o remount,ro
	ok hf umount "$M"
fi
# A passphrase never shows.
mount_volume
p=$(daemon_pid)
tr '\0' '\n' <"/proc/$p/cmdline" | grep -q "correct horse" && fail "the passphrase is in argv"
tr '\0' '\n' <"/proc/$p/environ" | grep -q "correct horse" && fail "the passphrase is in the environment"
grep -r -q "correct horse" "$HOLDFAST_HOME" && fail "the passphrase is in the state directory"
# Signals publish, unmount and end.
echo y >"$M/y"
kill -TERM "$p"
for _ in $(seq 900); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
kill -0 "$p" 2>/dev/null && fail "TERM did not end the daemon"
mountpoint -q "$M" && fail "TERM left the mount"
hf status v --json | jq -e '.unpublished.files == 0' >/dev/null || fail "TERM did not publish"
# A daemon that died leaves a stale mount point, which the next mount clears.
mount_volume
p=$(daemon_pid)
kill -9 "$p"
while kill -0 "$p" 2>/dev/null; do sleep 0.02; done
ls "$M" 2>/dev/null && fail "alive after kill -9"
mount_volume
eq "$(cat "$M/y")" y
umount_volume
# Unmounted from outside, and mounted again at once.  Without care it fails now and then.
for _ in $(seq 30); do
	mount_volume
	umount "$M" 2>/dev/null || ok fusermount3 -u "$M"
done
# In the foreground.
hf mount v "$M" -f &
for _ in $(seq 900); do mountpoint -q "$M" && break; sleep 0.1; done
mountpoint -q "$M" || fail "mount -f"
ok hf umount "$M"
wait $! || fail "mount -f ended with $?"
# Root's mounts are like any disk: others may work in them, devices and set-id bits count.
if [ "$(id -u)" -eq 0 ] && id nobody >/dev/null 2>&1 && command -v runuser >/dev/null; then
	chmod 755 "$W"
	as() { runuser -u nobody -- "$@"; }
	mount_volume
	chmod 1777 "$M"
	as sh -c "echo mine >'$M/n'" || fail "another user cannot write"
	eq "$(stat -c %U "$M/n")" nobody
	(umask 077 && echo secret >"$M/secret")
	as cat "$M/secret" 2>/dev/null && fail "modes are not kept"
	as rm -f "$M/secret" 2>/dev/null && fail "the sticky bit is not kept"
	cp "$(command -v id)" "$M/id" && chown nobody "$M/id" && chmod 4755 "$M/id"
	"$M/id" | grep -q 'euid=[0-9]*(nobody)' || fail "the set-uid bit does not count"
	mknod "$M/null" c 1 3 && chmod 666 "$M/null"
	as sh -c "echo x >'$M/null'" || fail "a device node does not work"
	umount_volume
	mount_volume -o nosuid,nodev
	"$M/id" | grep -q euid && fail "nosuid does not count"
	(echo x >"$M/null") 2>/dev/null && fail "nodev does not count"
	umount_volume
	mount_volume -o noexec,noatime
	"$M/id" 2>/dev/null && fail "noexec does not count"
	grep " $M " /proc/self/mountinfo | grep -q noatime || fail "noexec loses noatime"
	umount_volume
fi
