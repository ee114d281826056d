# SPDX-License-Identifier: GPL-3.0-or-later
# Recovery's refusals: each its own clear line, nothing left behind, nothing changed on a node.
. "$(dirname "$0")/lib.sh"
new_volume
mount_volume
make_tree "$M/t"
ok hf sync v --protected
umount_volume
sums() { (cd "$W/n" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
sums >"$W/nodes.before"
export HOLDFAST_HOME=$W/home2
none() { [ -z "$(ls -A "$HOLDFAST_HOME" 2>/dev/null)" ] || { ls -la "$HOLDFAST_HOME"; fail "something is left behind"; }; }
echo "not a kit at all" >"$W/bad"
no 1 hf recover "$W/bad" v
says kit
none
grep -n '^ *hf1' "$W/kit.txt" >/dev/null || fail "the kit has no hf1 lines"
line=$(grep -n -i '^ *hf1' "$W/kit.txt" | sed -n 2p | cut -d: -f1)
: "${line:=$(grep -n -i '^ *hf1' "$W/kit.txt" | cut -d: -f1 | head -n 1)}"
awk -v l="$line" 'NR == l { n = length($0) - 12; c = substr($0, n, 1); r = c == "a" ? "b" : "a"; $0 = substr($0, 1, n - 1) r substr($0, n + 1) } { print }' "$W/kit.txt" >"$W/typo"
no 1 hf recover "$W/typo" v
says line
none
sed "${line}d" "$W/kit.txt" >"$W/short"
no 1 hf recover "$W/short" v
none
# Case, spaces and line ends do not matter.
sed 's/$/\r/' "$W/kit.txt" | tr a-z A-Z >"$W/shouted" 
# (addresses are part of the machine lines, so the whole text may be shouted)
HOLDFAST_HOME=$W/home3 ok hf recover "$W/shouted" v >/dev/null 2>&1
# That recovery took the drive over, so compare what the nodes hold from here on.
sums >"$W/nodes.before"
# A kit of another volume whose nodes are these directories.
mkdir "$W/f"
urls=()
for i in 1 2 3 4 5 6; do urls+=(--node "dir:$W/f/$i"); done
HOLDFAST_HOME=$W/home-f ok hf create f "${urls[@]}" --survive 2 --kit "$W/kit-f" >/dev/null
mv "$W/f" "$W/f.away"
cp -a "$W/n" "$W/f"
no 1 hf recover "$W/kit-f" v
none
rm -rf "$W/f"
no 1 hf recover "$W/kit-f" v
says node
none
mv "$W/n" "$W/n.away"
no 1 hf recover "$W/kit.txt" v
none
mv "$W/n.away" "$W/n"
mkdir -p "$HOLDFAST_HOME"
: >"$W/empty" && chmod 600 "$W/empty"
no 1 hf recover "$W/kit.txt" v --passphrase-file "$W/empty"
none
sums >"$W/nodes.after"
ok cmp "$W/nodes.before" "$W/nodes.after"
# A kit that needs the passphrase as well.
export HOLDFAST_HOME=$W/home4
mkdir "$W/p"
urls=()
for i in 1 2 3; do urls+=(--node "dir:$W/p/$i"); done
ok hf create p "${urls[@]}" --survive 1 --kit "$W/kit-p" --kit-needs-passphrase >/dev/null
export HOLDFAST_HOME=$W/home5
echo wrong >"$W/wrong" && chmod 600 "$W/wrong"
no 1 hf recover "$W/kit-p" p --passphrase-file "$W/wrong"
says passphrase
none
ok hf recover "$W/kit-p" p >/dev/null 2>&1
# Nodes that were moved: found again when their new addresses are given.
export HOLDFAST_HOME=$W/home6
mv "$W/n" "$W/moved"
urls=()
for i in 1 2 3 4 5 6; do urls+=(--node "dir:$W/moved/$i"); done
ok hf recover "$W/kit.txt" v "${urls[@]}" >/dev/null 2>&1
mount_volume
[ -d "$M/t/sizes" ] || fail "nothing there after the move"
