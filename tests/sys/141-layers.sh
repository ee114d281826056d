# SPDX-License-Identifier: GPL-3.0-or-later
# The mount below and beside other things: bind mounts, the upper layer of overlayfs, watches,
# and tools that rely on what is not in POSIX: holes, times to the nanosecond, copies.
. "$(dirname "$0")/lib.sh"
options=interval=1
new_volume
mount_volume -o "$options"

# Holes stay holes, there and back.
ok truncate -s 300M "$M/sparse"
printf 'in the middle' | dd of="$M/sparse" conv=notrunc oflag=seek_bytes seek=150000000 status=none
[ "$(stat -c %b "$M/sparse")" -lt 1024 ] || fail "a hole takes $(stat -c %b "$M/sparse") blocks"
ok tar --sparse -C "$M" -cf "$W/sparse.tar" sparse
[ "$(stat -c %s "$W/sparse.tar")" -lt 1000000 ] || fail "tar stored the hole"
mkdir "$M/back"
ok tar --sparse -C "$M/back" -xf "$W/sparse.tar"
ok cmp "$M/sparse" "$M/back/sparse"
[ "$(stat -c %b "$M/back/sparse")" -lt 1024 ] || fail "the hole was filled"
ok cp --sparse=always "$M/sparse" "$M/third"
[ "$(stat -c %b "$M/third")" -lt 1024 ] || fail "cp filled the hole"
ok rm -r "$M/sparse" "$M/back" "$M/third"

# cp asks for a clone, and copies when there is none to be had.
head -c 3000000 /dev/urandom >"$M/one"
ok cp --reflink=auto "$M/one" "$M/two"
ok cmp "$M/one" "$M/two"
cp --reflink=always "$M/one" "$M/no" 2>/dev/null && fail "a clone that was none"
rm -f "$M/no"

# Times tell what is newer.
touch "$M/first" "$M/mark"
ok touch -d '2020-01-01 00:00:00.000000001' "$M/first"
ok touch -d '2020-01-01 00:00:00.000000002' "$M/mark"
eq "$(find "$M" -maxdepth 1 -name first -newer "$M/mark")" ""
eq "$(find "$M" -maxdepth 1 -name mark -newer "$M/first")" "$M/mark"
umount_volume
mount_volume -o "$options"
eq "$(find "$M" -maxdepth 1 -name mark -newer "$M/first")" "$M/mark" "after a mount"

# What is made here is seen by who watches.
if command -v inotifywait >/dev/null; then
	inotifywait -m -r --format '%e %f' "$M" >"$W/seen" 2>"$W/watch" &
	watch=$!
	for _ in $(seq 1200); do grep -q established "$W/watch" && break; sleep 0.05; done
	echo x >"$M/watched"
	mv "$M/watched" "$M/moved"
	rm "$M/moved"
	for _ in $(seq 1200); do grep -q 'DELETE moved' "$W/seen" && break; sleep 0.05; done
	kill $watch
	for e in 'CREATE watched' 'MODIFY watched' 'CLOSE_WRITE,CLOSE watched' 'MOVED_FROM watched' \
		'MOVED_TO moved' 'DELETE moved'; do
		grep -qx "$e" "$W/seen" || { cat "$W/seen"; fail "nobody saw $e"; }
	done
else
	echo "inotifywait is not installed: watches were left out"
fi

[ "$(id -u)" -eq 0 ] || { echo "not root: bind mounts and overlayfs were left out"; umount_volume; exit 0; }

# A bind mount of a directory, and one of a file.
mkdir -p "$M/dir" "$W/bound"
echo 1 >"$M/dir/f"
touch "$W/file"
ok mount --bind "$M/dir" "$W/bound"
ok mount --bind "$M/dir/f" "$W/file"
eq "$(cat "$W/bound/f" "$W/file")" "$(printf '1\n1')"
echo 2 >"$W/bound/f"
eq "$(cat "$M/dir/f" "$W/file")" "$(printf '2\n2')"
mv "$W/bound/f" "$M/dir/g" 2>/dev/null
eq "$(cat "$W/bound/g" "$W/file")" "$(printf '2\n2')"
ok umount "$W/bound" "$W/file"

grep -qw overlay /proc/filesystems || { echo "no overlayfs here: it was left out"; umount_volume; exit 0; }
layers() {
	mount -t overlay overlay -o "lowerdir=$W/low,upperdir=$M/up,workdir=$M/work" "$W/all"
}
mkdir -p "$W/low/d" "$W/all" "$M/up" "$M/work"
echo low >"$W/low/a"
echo low >"$W/low/d/x"
ln "$W/low/a" "$W/low/a2"
ok layers
(
	cd "$W/all" || exit 1
	set -e
	echo new >b
	echo more >>a
	rm d/x a2
	rmdir d
	mkdir d
	echo y >d/y
	mv a c
	ln c e
	mkdir deep
	mv d deep/dd
	setfattr -n user.k -v v b 2>/dev/null || true
	cp -a c copy
	chmod 600 copy
) || fail "working in the overlay"
check() {
	eq "$(cd "$W/all" && find . -mindepth 1 | sort | tr '\n' ' ')" "./b ./c ./copy ./deep ./deep/dd ./deep/dd/y ./e "
	eq "$(cat "$W/all/c")" "$(printf 'low\nmore')"
	eq "$(stat -c %a "$W/all/copy")" 600
}
check
ok umount "$W/all"
eq "$(stat -c %F "$M/up/a")" "character special file"
eq "$(stat -c %F "$M/up/d")" "character special file"
umount_volume
mount_volume -o "$options"
ok layers
check
ok umount "$W/all"
ok hf sync v
umount_volume
ok hf fsck v --nodes
