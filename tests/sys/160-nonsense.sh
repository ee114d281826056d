# SPDX-License-Identifier: GPL-3.0-or-later
# Nonsense on the command line and in the state directory: one line of error, status 1 or 2,
# nothing lost and nothing left over.
. "$(dirname "$0")/lib.sh"
two() { echo --node "dir:$W/b" --node "dir:$W/c"; }
# refused STATUS WORD ARGUMENTS: create v with them fails so and leaves nothing.
refused() {
	local status=$1 word=$2
	shift 2
	no "$status" hf create v "$@"
	says "$word"
	[ -e "$W/b" ] || [ -e "$W/c" ] || [ -e "$HOLDFAST_HOME/v" ] && fail "a refused create left something: $*"
	return 0
}

# Arguments.
for c in create mount umount status sync recover node credentials scrub repair fsck kit; do
	no 2 hf $c --bogus
	no 2 hf $c a b c d e
	no 2 hf $c -Z
done
for c in create mount umount sync scrub repair fsck kit; do no 2 hf $c ""; done
no 2 hf status --json=x
says "takes no value"
for n in ../x -- "a b" $'a\nb' $'\x1b[31m' ü "$(printf '%070d' 0)"; do no 2 hf create -- "$n"; done
for s in -1 0 "" 1.5 6 99999999999999999999999; do no 2 hf create v --survive "$s"; done
for s in -1 0 "" 99999999999999999999; do no 2 hf sync v --timeout "$s"; done
for o in cache_size= cache_size=-1 cache_size=99999999999999999T interval=0 threads=65 fsync=x allow_root fnord =; do
	no 2 hf mount v "$M" -o "$o"
done

# Places of nodes.
touch "$W/file"
mkdir "$W/real" "$W/tmpfs"
ln -s "$W/real" "$W/link"
ln -s "$W/nowhere" "$W/dead"
ln -s "$W/loop" "$W/loop"
refused 2 "/absolute/path" $(two) --node ""
refused 2 absolute $(two) --node dir:
refused 2 root $(two) --node dir:/
refused 2 control $(two) --node "dir:$W/a"$'\n'x
refused 2 UTF-8 $(two) --node "dir:$W/"$'\xff'
refused 2 within $(two) --node "dir:$W/b/x"
refused 2 "same place" --node "dir:$W/b" --node "dir:$W/link" --node "dir:$W/real"
refused 2 "state directory" $(two) --node "dir:$HOLDFAST_HOME"
refused 2 "state directory" $(two) --node "dir:$HOLDFAST_HOME/v/data"
refused 2 "state directory" --node "dir:$W/b" --node "dir:$W/c" --node "dir:$W"
refused 1 "not a directory" $(two) --node "dir:$W/file"
refused 1 "not a directory" $(two) --node "dir:$W/file/x"
refused 1 link $(two) --node "dir:$W/dead"
refused 1 levels $(two) --node "dir:$W/loop"
refused 1 "not there" $(two) --node "dir:$W/no/such"
refused 1 "cannot be made" $(two) --node dir:/proc/x
# Kits.
refused 2 kit $(two) --kit ""
refused 2 control $(two) --kit "$W/k"$'\n'x
refused 2 UTF-8 $(two) --kit "$W/"$'\xff'
refused 1 exists $(two) --kit "$W/file"
refused 1 "no such" $(two) --kit "$W/no/kit"
# A disk that is full or read-only.
if [ "$(id -u)" -eq 0 ] && mount -t tmpfs -o size=64k none "$W/tmpfs" 2>/dev/null; then
	mkdir "$W/tmpfs/n"
	head -c 1M /dev/zero >"$W/tmpfs/fill" 2>/dev/null
	refused 1 "no space" $(two) --node "dir:$W/tmpfs/n"
	[ -z "$(ls -A "$W/tmpfs/n")" ] || fail "left on the full disk: $(ls -A "$W/tmpfs/n")"
	refused 1 "no space" $(two) --kit "$W/tmpfs/kit"
	(HOLDFAST_HOME=$W/tmpfs/h refused 1 "no space" $(two)) || fail "a full state directory"
	rm -f "$W/tmpfs/fill"
	mount -o remount,ro "$W/tmpfs"
	refused 1 read-only $(two) --node "dir:$W/tmpfs/n"
	refused 1 read-only $(two) --node "dir:$W/tmpfs/x"
	(HOLDFAST_HOME=$W/tmpfs refused 1 read-only $(two)) || fail "a read-only state directory"
fi
# State directories.
no 1 env HOLDFAST_HOME="$W/file" "$HOLDFAST" create v
says HOLDFAST_HOME
no 1 env HOLDFAST_HOME=/proc/x "$HOLDFAST" create v
no 1 env -u HOLDFAST_HOME -u XDG_DATA_HOME -u HOME "$HOLDFAST" status
says HOLDFAST_HOME
HOLDFAST_HOME=$W/typo/x hf status >/dev/null || fail "status without volumes"
[ -e "$W/typo" ] && fail "looking made the state directory"

new_volume
V=$HOLDFAST_HOME/v
# Standard streams: full, or closed; the database must not be opened as standard error.
for c in "status" "status v" "status v --json" "node list v" "sync v" "fsck v" "kit v" "--help" "--version" "create --help"; do
	# shellcheck disable=SC2086
	hf $c >/dev/full 2>"$W/err" </dev/null
	eq $? 1 "$c to a full device"
	eq "$(grep -c . "$W/err")" 1 "lines of error of $c to a full device"
done
hf mount v "$M" <&- >&- 2>&- || fail "mount with closed streams"
hf status v <&- >&- 2>&- && fail "status to a closed stream succeeded"
echo x >"$M/x"
hf umount "$M" <&- >&- 2>&- || fail "umount with closed streams"
ok hf fsck v --deep >/dev/null

# volume.json and keys.
cp -a "$V" "$W/keep"
damaged() {
	no 1 hf mount v "$M"
	says "${1:-}"
	no 1 hf fsck v --nodes
	rm -rf "$V" && cp -a "$W/keep" "$V"
}
json() { jq "$1" "$W/keep/volume.json" >"$V/volume.json"; }
: >"$V/volume.json" && damaged volume.json
head -c 100 "$W/keep/volume.json" >"$V/volume.json" && damaged volume.json
rm "$V/volume.json" && damaged "no volume"
rm "$V/volume.json" && mkdir "$V/volume.json" && damaged directory
json '.format=2' && damaged newer
json '.x=1' && damaged unknown
json '.k=5' && damaged nodes
json '.device=2' && damaged device
json '.volume|=((if .[:2]=="00" then "01" else "00" end)+.[2:])' && damaged "one volume"
json '.nodes[0].number=2' && damaged damaged
json '.nodes[0].url="dir:x"' && damaged absolute
json '.devices=[]' && damaged devices
rm "$V/keys" && damaged recover
: >"$V/keys" && damaged damaged
echo x >>"$V/keys" && damaged damaged
tail -c +61 "$V/keys" | head -c 1 | tr '\000-\377' '\001-\377\000' | dd of="$V/keys" bs=1 seek=60 conv=notrunc status=none && damaged damaged
rm "$V/meta.db" && damaged "fsck v --rebuild"

# Mount points.
mkdir -p "$HOLDFAST_HOME/m" "$W/n/1/m"
no 1 hf mount v "$HOLDFAST_HOME/m"
says "state directory"
no 1 hf mount v "$W/n/1/m"
says within
no 1 hf mount v "$W/n"
says within
rmdir "$HOLDFAST_HOME/m" "$W/n/1/m"
mount_volume
no 1 hf mount v "$M"
says already
no 1 hf fsck v --rebuild
no 1 hf recover "$W/kit.txt" v
(cd "$M" && no 1 hf umount "$M" && says "in use") || fail "umount of a busy mount"
umount_volume
no 1 hf umount "$M"
no 1 hf umount /
no 1 hf umount "$W/file"

# Kits: line order and what stands around them do not matter, other things do.
awk '/^hf1/ && !n { held = $0; n = 1; next } { print } /^hf1/ && held { print held; held = "" }' "$W/kit.txt" >"$W/k"
cmp -s "$W/k" "$W/kit.txt" && fail "no lines were exchanged"
ok hf kit v --from "$W/k" >/dev/null
(cat "$W/kit.txt" "$W/kit.txt" && head -c 3000 /dev/urandom) >"$W/k"
ok hf kit v --from "$W/k" >/dev/null
HOLDFAST_HOME=$W/home2 hf create w --kit "$W/kit2" >/dev/null || fail create
cat "$W/kit.txt" "$W/kit2" >"$W/k"
no 1 hf recover "$W/k" r
says "more than one"
(cat "$W/kit.txt" && echo hf1-aaaaa) >"$W/k"
no 1 hf recover "$W/k" r
says short
head -c 700 "$W/kit.txt" >"$W/k"
no 1 hf recover "$W/k" r
says missing
for k in "$W/file" "$W" "$W/none" /dev/zero; do no 1 hf recover "$k" r; done
no 2 hf recover "" r
no 2 hf recover "$W/kit.txt" ""
no 2 hf recover "$W/kit.txt" ../r
no 1 hf recover "$W/kit.txt" r --node "dir:$W/none"
no 1 hf recover "$W/kit.txt" r --node "dir:$HOLDFAST_HOME"
eq "$(ls -A "$HOLDFAST_HOME")" v "what refused recoveries left"
mount_volume
eq "$(cat "$M/x")" x
umount_volume
