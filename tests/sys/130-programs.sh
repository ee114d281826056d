# SPDX-License-Identifier: GPL-3.0-or-later
# Unmodified programs: a source package unpacked and built, git, SQLite under concurrent
# writers, rsync there and back, fio with verification, the save patterns of editors.
. "$(dirname "$0")/lib.sh"
for p in git sqlite3 rsync fio; do have $p; done
new_volume
mount_volume -o interval=2
cd "$M" || fail cd

tarball=$("$ROOT/tests/source-package" zlib "$B/source") || tarball=
if [ "$tarball" ]; then
	mkdir build && tar -C build --strip-components=1 -xf "$tarball" || fail unpack
	mkdir "$W/ref" && tar -C "$W/ref" --strip-components=1 -xf "$tarball"
	ok diff -r "$W/ref" build
	(cd build && ./configure >/dev/null && make -j2 >/dev/null 2>&1 && make test) >"$W/build.log" 2>&1 ||
		{ tail "$W/build.log"; fail "zlib does not build or fails its tests"; }
	grep -q "zlib test OK" "$W/build.log" || fail "zlib's own test"
else
	echo "no source package from here: its build was left out"
fi

git config --global --get user.email >/dev/null || export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
ok git init -q repo
cp -r "$ROOT/net" "$ROOT/cache" "$ROOT/fs" repo/
(cd repo && git add . && git commit -qm one && git gc -q && for i in 1 2 3; do echo $i >>net/README.md; git commit -qam $i; done) || fail "git commit"
ok git clone -q repo clone
ok git clone -q --no-hardlinks repo clone2
ok git -C clone fsck --full --strict
(cd clone && git checkout -q -b x HEAD~2 && git worktree add -q ../wt && git -C ../wt status >/dev/null) || fail "git worktree"
ok git -C clone2 fsck

for mode in delete wal; do
	sqlite_writers $mode 40
done

ok "$TOOLS/mktree" "$W/tree" 7
rm "$W/tree/sparse" # rsync would read its 5 TiB of zeros
# rsync leaves a time alone that differs by less than a second, so none may be of just now.
find "$W/tree" -depth -newermt '-1 day' -exec touch -h -d '2021-02-03 04:05:06.123456789' {} +
ok rsync -aHAX "$W/tree/" tree/
ok rsync -aHAX --checksum --itemize-changes "$W/tree/" tree/ >"$W/rsync"
grep -v '^\.d..t' "$W/rsync" | grep . >/dev/null && { cat "$W/rsync"; fail "rsync finds differences"; }
ok rsync -aHAX tree/ "$W/back/"
tree "$W/tree" >"$W/a"
tree "$W/back" >"$W/b"
diff "$W/a" "$W/b" || fail "the tree differs after rsync there and back"

ok fio --name=v --directory=. --size=32m --bs=4k --rw=randrw --verify=crc32c --do_verify=1 --verify_fatal=1 \
	--ioengine=psync --numjobs=2 --fsync=200 --group_reporting --output="$W/fio"
ok fio --name=d --directory=. --size=16m --bs=64k --rw=randwrite --verify=crc32c --do_verify=1 --verify_fatal=1 \
	--ioengine=psync --direct=1 --output="$W/fio"
ok fio --name=m --directory=. --size=16m --bs=4k --rw=randwrite --verify=crc32c --do_verify=1 --verify_fatal=1 \
	--ioengine=mmap --output="$W/fio"
rm -f v.* d.* m.*

# vim: write a backup, write the new file, remove the backup; LibreOffice: lock file, temporary
# file, rename over.
echo "first" >doc
for i in 1 2 3 4 5; do
	cp -p doc doc~ && echo "version $i" >doc.new && mv doc.new doc && rm doc~
	echo lock >".~lock.doc#" && echo "office $i" >lu123.tmp && sync lu123.tmp && mv lu123.tmp doc && rm ".~lock.doc#"
	eq "$(cat doc)" "office $i"
done
if command -v vim.tiny >/dev/null || command -v vim >/dev/null; then
	v=$(command -v vim || command -v vim.tiny)
	"$v" -u NONE -es -c 'set backup writebackup backupcopy=no' -c '%s/office/edited/' -c wq doc </dev/null >/dev/null 2>&1
	eq "$(cat doc)" "edited 5" vim
	"$v" -u NONE -es -c 'set backupcopy=yes' -c '%s/edited/again/' -c wq doc </dev/null >/dev/null 2>&1
	eq "$(cat doc)" "again 5" vim
fi
(flock -n 9 && ! flock -n doc true) 9>doc || fail flock

cd /
ok hf sync v --protected
tree "$M" >"$W/want"
umount_volume
ok hf fsck v --nodes --deep
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
tree "$M" >"$W/got"
diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "the recovered tree differs"; }
ok git -C "$M/clone" fsck --full
eq "$(sqlite3 "$M/s-wal.db" 'PRAGMA integrity_check')" ok
