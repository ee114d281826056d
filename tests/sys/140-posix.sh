# SPDX-License-Identifier: GPL-3.0-or-later
# What POSIX and Linux promise of names, attributes, contents and locks: as root, as an
# ordinary user, and again with everything published and given up by the cache.
. "$(dirname "$0")/lib.sh"
PARTS="posix posixdir posixattr posixacl posixdata posixlock"
options=interval=1
[ "$(id -u)" -eq 0 ] && options=interval=1,allow_other,dev,suid
new_volume
mount_volume -o "$options"
check() {
	local dir=$1 part bad=
	shift
	for part in $PARTS; do
		"$@" "$P/$part" "$dir" >"$W/posix.out" 2>&1 || { bad=1; echo "$part:"; cat "$W/posix.out"; }
	done
	[ ! "$bad" ] || fail "the checks in $dir"
}
mkdir "$M/own"
P=$TOOLS
check "$M/own"
eq "$(find "$M/own" | wc -l)" 1 "something was left"
if [ "$(id -u)" -eq 0 ] && command -v runuser >/dev/null && id nobody >/dev/null 2>&1; then
	mkdir "$W/bin" && P=$W/bin
	for part in $PARTS; do cp "$TOOLS/$part" "$P/"; done
	chmod 755 "$W" "$W/bin" "$W"/bin/*
	mkdir "$M/nobody" && chown nobody "$M/nobody"
	check "$M/nobody" runuser -u nobody --
	P=$TOOLS
else
	echo "not root: another user was left out"
fi
umount_volume
mount_volume -o "$options,cache_size=16M"
check "$M/own"
ok hf sync v
umount_volume
ok hf fsck v --nodes
