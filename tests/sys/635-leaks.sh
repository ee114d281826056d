# SPDX-License-Identifier: GPL-3.0-or-later
# P5: no 12 bytes in a row of a file, a name, a link's target, an attribute, a key or the passphrase
# lie on a node; none of a key or the passphrase in the log, the arguments, the environment, or in
# memory that can be swapped out or be part of a core; lengths on nodes are those of the padding.
# (What opens servers: 240.)
. "$(dirname "$0")/lib.sh"
have python3
have jq
leaks() { ok python3 "$ROOT/tests/tools/leaks.py" "$@"; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
need() { # NAME, from standard input
	printf '%s %s\n' "$1" "$(hex)"
}
new_volume
mount_volume -o interval=1
text="It was the best of times, it was the worst of times $SEED; the price of whale oil rose again."
mkdir "$M/a folder of letters $SEED"
cd "$M/a folder of letters $SEED" || exit 1
for _ in $(seq 3000); do echo "$text"; done >"memorandum to nobody $SEED.txt"
echo "$text" >"short note of $SEED"
head -c 5000 /dev/urandom >"noise $SEED.bin"
head -c 3000000 /dev/urandom >large
ln -s "/where/the link of $SEED/leads to" "symbolic $SEED"
setfattr -n "user.who wrote it $SEED" -v "the author of $SEED was here" large ||
	python3 -c "import os; os.setxattr('large', 'user.who wrote it $SEED', b'the author of $SEED was here')"
cp -a "memorandum to nobody $SEED.txt" "a copy of the memorandum $SEED"
rm "short note of $SEED"
{
	need content <<<"$text"
	head -c 300 "noise $SEED.bin" | need noise
	head -c 300 large | need large
	tail -c 300 large | need "large-end"
	for f in * "a folder of letters $SEED" "short note of $SEED"; do
		[ ${#f} -ge 12 ] && printf %s "$f" | need "name"
	done
	printf %s "/where/the link of $SEED/leads to" | need target
	printf %s "user.who wrote it $SEED" | need attribute
	printf %s "the author of $SEED was here" | need value
} >"$W/plain"
cd / || exit 1
ok hf sync v --protected
# The list of nodes is sealed, too.
for i in 1 2 3 4 5 6; do printf %s "dir:$W/n/$i" | need "address"; done >>"$W/plain"
umount_volume
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null
mount_volume -o interval=1
cat "$M"/*/large >/dev/null
ok hf sync v --protected
header=$(find "$W/n/1/v" -name 'h*' | head -n 1)
ok "$TOOLS/secrets" "$W/kit.txt" "$header" >"$W/keys"
head -n 1 "$W/pass" | tr -d '\n' | need passphrase >>"$W/keys"
grep -E "^(kit|owner-sign|volume|domain|log|passphrase) " "$W/keys" >"$W/raw"
[ "$(wc -l <"$W/keys")" -ge 12 ] || fail "the keys are not known"
# As text, too.
awk '{ print $1 "-hex", substr($2, 1, 26) }' "$W/keys" | while read -r name x; do printf %s "$x" | need "$name"; done >"$W/keys.hex"
cat "$W/keys.hex" >>"$W/keys"

nowhere() { # WHAT NEEDLES FILE...
	local what=$1
	shift
	leaks files "$@" >"$W/found"
	[ ! -s "$W/found" ] || { head "$W/found"; fail "found in $what"; }
}
cat "$W/plain" "$W/keys" >"$W/all"
echo "$SECONDS s: on the nodes"
# In the names of the files below, not in those of the directories above.
(cd "$W/n" && nowhere "what lies on the nodes" "$W/all" 1 2 3 4 5 6) || exit 1
pid=$(daemon_pid)
echo "$SECONDS s: on this machine"
mkdir "$W/seen"
cat "/proc/$pid/cmdline" >"$W/seen/cmdline"
cat "/proc/$pid/environ" >"$W/seen/environ"
cp "$HOLDFAST_HOME/v/log" "$W/home/v/log" "$W/seen/" 2>/dev/null
nowhere "the log, arguments or environment" "$W/keys" "$W/seen"
nowhere "the state directory" "$W/keys" "$HOLDFAST_HOME" "$W/home"
for i in 1 2 3 4 5 6; do
	leaks sizes "$W/n/$i" >"$W/found"
	[ ! -s "$W/found" ] || { head "$W/found"; fail "lengths that are not padded on node $i"; }
done
# The controls: what is there is found.
mkdir "$W/planted"
{ head -c 1000 /dev/urandom; printf %s "${text:20:12}"; head -c 1000 /dev/urandom; } >"$W/planted/x"
touch "$W/planted/memorandum to nobody $SEED.txt"
leaks files "$W/all" "$W/planted" >"$W/found"
grep -q content "$W/found" || fail "the search is blind"
grep -q name "$W/found" || fail "blind to names"
head -c 777 /dev/zero >"$W/y" && mkdir "$W/planted/s" && mv "$W/y" "$W/planted/s/"
leaks sizes "$W/planted" >"$W/found"
grep -q "s/y 777" "$W/found" || fail "blind to lengths"

eq "$(awk '/Max core/ { print $5 }' "/proc/$pid/limits")" 0 "core files"
if [ "$(id -u)" -eq 0 ]; then
	echo "$SECONDS s: in memory"
	# gcore and the swap see only what is not locked; the kit's secret is not there at all.
	leaks mem "$W/raw" "$pid" >"$W/found"
	cat "$W/found"
	grep -q "^volume locked" "$W/found" || fail "the volume key is not even found where it must be: the search is blind"
	grep loose "$W/found" && fail "a key in memory that can be swapped out, or be part of a core"
	grep -E "^(kit|owner)" "$W/found" && fail "the kit's secret in the memory of a mount"
	if id nobody >/dev/null 2>&1 && command -v runuser >/dev/null; then
		runuser -u nobody -- cat "/proc/$pid/environ" >/dev/null 2>&1 && fail "its environment can be read"
	fi
fi
exit 0
