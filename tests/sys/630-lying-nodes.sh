# SPDX-License-Identifier: GPL-3.0-or-later
# P5: every kind of object on a node, every way in which a node can lie about it, on one node or
# on two: fsck --deep names exactly those nodes, and a recovery that meets them has every byte
# right and blames nobody else.  A sample; ALL=1 (make lies): all of it.  Then nodes that are set back.
. "$(dirname "$0")/lib.sh"
have python3
have jq
lie() { ok python3 "$TOOLS_SRC/lie.py" "$@"; }
TOOLS_SRC=$ROOT/tests/tools
export SEED

# Attributes that do not shrink bring the log to where a snapshot is due, and its records into segments.
grow() { # dir
	python3 - "$1" <<-'P' || fail "growing"
		import os, sys
		for i in range(90):
		    path = "%s/grow-%d" % (sys.argv[1], i)
		    open(path, "w").close()
		    os.setxattr(path, "user.bytes", os.urandom(60000))
	P
}
new_volume
mount_volume -o interval=1
make_tree "$M/t" "$SEED"
head -c 2500000 /dev/urandom >"$M/large"
head -c 90000 /dev/urandom >"$M/middle"
grow "$M"
ok hf sync v
for _ in $(seq 300); do
	compgen -G "$W/n/1/l/s*" >/dev/null && break
	sleep 0.2
done
compgen -G "$W/n/1/l/s*" >/dev/null || fail "no snapshot is taken"
echo more >"$M/more"
ok hf sync v
before=$(ls "$W/n/1/s")
head -c 900000 /dev/urandom >"$M/one-segment"
ok hf sync v --protected
# Where the shards of that one segment are.
declare -A shard
for n in 1 2 3 4 5 6; do
	shard[$n]=$(find "$W/n/$n/s" -type f -size -400k -size +200k -newer "$M/more" | head -n 1)
done
umount_volume
# Recovered once, so that there are takeover markers, another header, a roster.
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null
mount_volume -o interval=1
echo after >"$M/after"
ok hf sync v --protected
tree "$M" >"$W/want"
umount_volume
ok hf fsck v --nodes --deep >/dev/null
cp -a "$W/n" "$W/good"
cp -a "$HOLDFAST_HOME" "$W/home2.good"
# Another drive, with all of that as well.
mkdir "$W/f"
(
	export HOLDFAST_HOME=$W/home-f
	urls=()
	for i in 1 2 3 4 5 6; do urls+=(--node "dir:$W/f/$i"); done
	ok hf create f "${urls[@]}" --survive 2 --kit "$W/kit-f" >/dev/null
	ok hf mount f "$M"
	head -c 900000 /dev/urandom >"$M/x"
	ok hf sync f --protected
	ok hf umount "$M"
	export HOLDFAST_HOME=$W/home-f2
	ok hf recover "$W/kit-f" f >/dev/null
	ok hf mount f "$M"
	echo y >"$M/y"
	ok hf sync f --protected
	ok hf umount "$M"
) || exit 1

# KINDS='commit shard' and BACK='1 6' do a part of it; BACK=none: nothing is set back.
read -ra kinds <<<"${KINDS-marker header roster mark commit snapshot takeover shard}"
declare -A glob=([marker]=v/node [header]='v/h*' [roster]='v/n[0-9]*' [mark]='v/e*' [commit]='l/c*'
	[snapshot]='l/s*' [takeover]='l/t*' [shard]='s/*')
hows=(flip truncate extend empty swap older foreign range)
# A name on a node, sharded into folders or not.
blobs() { # root kind
	find "$1" -path "$1/${glob[$2]}" -type f ! -name '.*' | sort
}
hurt() { # how kind node all|one
	local f list other
	mapfile -t list < <(blobs "$W/n/$3" "$2")
	[ ${#list[@]} -gt 0 ] || fail "node $3 has no $2"
	# Of the marks the newest alone means anything: those of earlier devices are left over.
	if [ "$2" = mark ]; then
		f=$(printf '%s\n' "${list[@]}" | xargs ls -t | head -n 1)
		list=("$f")
	elif [ "$2 $4" = "shard one" ]; then
		# Of one that is needed: what is garbage, and not collected yet, is nobody's loss.
		list=("${shard[$3]}")
	elif [ "$4" = one ]; then
		list=("${list[RANDOM % ${#list[@]}]}")
	fi
	case $1 in
	flip | truncate | extend | empty)
		for f in "${list[@]}"; do lie "$1" "$f"; done
		;;
	swap) # with another of its kind, or of any
		f=${list[0]}
		other=$(blobs "$W/n/$3" "$2" | grep -vxF "$f" | head -n 1)
		[ "$other" ] || other=$(blobs "$W/n/$3" commit | head -n 1)
		lie swap "$f" "$other"
		;;
	older) # the oldest of its kind takes the newest one's place
		f=$(blobs "$W/n/$3" "$2" | xargs ls -t | head -n 1)
		other=$(blobs "$W/n/$3" "$2" | xargs ls -t | tail -n 1)
		if [ "$f" = "$other" ] || cmp -s "$f" "$other"; then other=$(blobs "$W/n/$3" header | head -n 1); fi
		lie copy "$f" "$other"
		;;
	foreign)
		other=$(blobs "$W/f/$3" "$2" | head -n 1)
		[ "$other" ] || other=$(blobs "$W/f/$3" commit | head -n 1)
		for f in "${list[@]}"; do lie copy "$f" "$other"; done
		;;
	range)
		for f in "${list[@]}"; do lie range "$f"; done
		;;
	esac
}
# The numbers of all nodes that fsck's findings name, as one line.
named() { jq -r '.findings[]' "$1" | grep -oE '\bnode[ -][0-9]+' | grep -oE '[0-9]+' | sort -nu | tr '\n' ' '; }
reset() {
	rm -rf "$W/n" "$W/home2" "$W/home3"
	cp -a "$W/good" "$W/n"
	cp -a "$W/home2.good" "$W/home2"
}
# judge WHAT NODE...: these have lied, about anything.
judge() {
	local what=$1 want
	shift
	want=$(printf '%s\n' "$@" | sort -n | tr '\n' ' ')
	export HOLDFAST_HOME=$W/home2
	hf fsck v --deep --json >"$W/fsck" 2>"$W/err" && { cat "$W/fsck"; fail "$what: fsck --deep finds nothing"; }
	[ -s "$W/fsck" ] || { cat "$W/err"; fail "$what: no findings"; }
	eq "$(named "$W/fsck")" "$want" "$what: who fsck names ($(jq -c '.findings[:4]' "$W/fsck"))"
	export HOLDFAST_HOME=$W/home3
	ok hf recover "$W/kit.txt" v >"$W/recover.out" 2>&1
	mount_volume
	tree "$M" >"$W/got"
	diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "$what: wrong bytes"; }
	hf status v --json >"$W/status"
	jq -e --arg want "$want" '[.nodes[] | select(.state == "lying" or .state == "wrong") | .number | tostring] -
		($want | split(" ")) == []' "$W/status" >/dev/null ||
		{ jq -c '.nodes[] | [.name, .state, .error]' "$W/status"; fail "$what: an honest node is blamed"; }
	ok hf umount "$M" --now
}
case_of() { # kind how
	local a=$((RANDOM % 6 + 1)) b=$((RANDOM % 6 + 1)) much=all
	[ $((RANDOM % 2)) = 0 ] || much=one
	[ $a = $b ] && b=$((b % 6 + 1))
	reset
	if [ $((RANDOM % 4)) = 0 ]; then b=; fi
	echo "$SECONDS s: $1 $2 ($much) on node $a${b:+ and $b}"
	for n in $a $b; do hurt "$2" "$1" "$n" $much; done
	judge "$1 $2 ($much) on node $a${b:+ and $b}" $a ${b:+$b}
}
# The control: honest nodes are not named.
jq -e . >/dev/null <<<'{}' && hf fsck v --deep --json | jq -e '.count == 0' >/dev/null || fail "an honest node is named"
pick=$((RANDOM % ${#hows[@]}))
for kind in "${kinds[@]}"; do
	for how in "${hows[@]}"; do
		[ "${ALL:-}" ] || [ "$how" = "${hows[pick]}" ] || continue
		case_of "$kind" "$how"
	done
	pick=$(((pick + 1) % ${#hows[@]}))
done
# Another shard of the same segment, under this one's name.
if [[ " ${kinds[*]} " == *" shard "* ]]; then
	reset
	[ "${shard[2]}" ] && [ "${shard[5]}" ] || fail "the segment is not found"
	lie copy "${shard[2]}" "${shard[5]}"
	judge "another shard of its segment" 2
fi

# --- nodes that are set back to an older copy of themselves, one to all of them ---
reset
cp -a "$W/n" "$W/old"
export HOLDFAST_HOME=$W/home2
mount_volume -o interval=1
tree "$M" >"$W/want.old"
head -c 700000 /dev/urandom >"$M/since"
cp "$M/since" "$W/since"
dd if=/dev/urandom of="$M/large" bs=64k seek=3 count=9 conv=notrunc status=none
mv "$M/middle" "$M/moved"
ok hf sync v --protected
tree "$M" >"$W/want"
umount_volume
rm -rf "$W/good" "$W/home2.good" && cp -a "$W/n" "$W/good" && cp -a "$HOLDFAST_HOME" "$W/home2.good"
set_back() {
	local n
	reset
	for n in $(seq "$1"); do rm -rf "$W/n/$n" && cp -a "$W/old/$n" "$W/n/$n"; done
}
older() { grep "an older copy of this node" "$HOLDFAST_HOME/v/log" | grep -oE 'node-[0-9]+' | sort -u | wc -l; }
BACK=${BACK:-${ALL:+1 2 3 4 5 6}}
for back in ${BACK:-2 3 6}; do
	[ "$back" != none ] || break
	echo "$SECONDS s: $back set back"
	set_back $back
	# Who remembers nothing, and has the kit alone.
	export HOLDFAST_HOME=$W/home3
	if hf recover "$W/kit.txt" v >"$W/recover.out" 2>&1; then
		mount_volume
		if [ $back -le 2 ]; then
			tree "$M" >"$W/got"
			diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "$back set back: not the newest state"; }
		elif [ $back -ge 4 ] && [ ! -e "$M/moved" ]; then
			# Four answers are enough, and none of them was of a node that has more.
			tree "$M" >"$W/got"
			diff "$W/want.old" "$W/got" >"$W/diff" || { head "$W/diff"; fail "$back set back: neither state"; }
		elif [ $back -lt 6 ]; then
			# The names are the newest.  Of a segment that less than K nodes have, what is
			# on a node that is left is right, and the rest is an error.
			[ -e "$M/moved" ] && [ ! -e "$M/middle" ] || fail "$back set back: an older tree"
			cmp -s "$M/since" /dev/null && fail "$back set back: an empty file"
			if cat "$M/since" >"$W/got" 2>/dev/null; then
				cmp "$W/since" "$W/got" || fail "$back set back: wrong bytes"
			fi
			cat "$M/since" "$M/large" >/dev/null 2>&1 && fail "$back set back: read from less than K shards"
		else
			# Nothing is left that says that there was more: the README says so.
			fail "all set back: what was never there"
		fi
		ok hf umount "$M" --now
	elif [ $back -le 2 ]; then
		cat "$W/recover.out"
		fail "$back set back: no recovery"
	else
		grep -q "old\|rolled\|enough\|missing" "$W/recover.out" || { cat "$W/recover.out"; fail "$back set back: the error does not say it"; }
	fi
	# Who remembers.
	set_back $back
	export HOLDFAST_HOME=$W/home2
	: >"$HOLDFAST_HOME/v/log"
	mount_volume -o interval=1
	if [ $back -le 2 ]; then
		ok hf sync v --protected
		eq "$(older)" $back "how many are named as older copies"
		tree "$M" >"$W/got"
		diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "$back set back: wrong"; }
		umount_volume
		ok hf fsck v --deep >/dev/null
	elif [ $back = 6 ]; then
		echo new >"$M/new"
		hf sync v --timeout 60 2>"$W/err" && fail "all set back: it publishes"
		says "rolled back"
		hf status v --json | jq -r .warning | grep -q "rolled back" || fail "all set back: status does not say it"
		eq "$(cat "$M/new")" new
		ok hf umount "$M" --now
		# Once more: it is not forgotten.
		mount_volume
		hf sync v --timeout 60 2>"$W/err" && fail "all set back: it publishes after another mount"
		says "rolled back"
		ok hf umount "$M" --now
		# The newer ones are back.
		rm -rf "$W/n" && cp -a "$W/good" "$W/n"
		mount_volume
		ok hf sync v --protected
		umount_volume
	else
		for _ in $(seq 300); do
			[ "$(older)" = $back ] && break
			sleep 0.2
		done
		eq "$(older)" $back "how many are named as older copies"
		hf status v --json | jq -e '.protected == false' >/dev/null || fail "$back set back: said to be protected"
		ok hf umount "$M" --now
	fi
done
exit 0
