# SPDX-License-Identifier: GPL-3.0-or-later
# The n-th write, sync, open, rename, truncate, ... of a session fails, once or for good, or an
# allocation does: the program gets a clean errno or all is done; the daemon never dies; what was
# acknowledged is there after the next mount; a failed fsync stays failed, and the drive says why.
# Some fixed cases; COUNT=n: random ones; ALL=1: the first call of every place of the program
# (`make nth`: hours; HOWS=1: in one way each; PART=i/n: a part of them; KIND='write sync': of those
# kinds), ALL=each: every n of every kind (days); CASE='kind n how for place' is one of them, as it
# is printed; @PLACE stands for n there, MATCH=word limits it to paths that hold the word.
. "$(dirname "$0")/nth-lib.sh"
prepare

places_home=$W/home places_node=$W/n/1 places_nodes=$W/n/1:$W/n/3
declare -A total
# count PLACE: how many calls of each kind a session makes there.
count() {
	local p=places_$1 i
	[ "${total[$1.write]:-}" ] && return
	case="nothing fails"
	rm -f "$W/places-$1"
	whole NTH_UNDER="${!p}" NTH_SITES="$W/places-$1" NTH_CALLS="$(IFS=,; echo "${KINDS[*]}")"
	for i in "${!KINDS[@]}"; do total[$1.${KINDS[i]}]=$(kind_count "$i"); done
	echo "calls below $1:$(for k in "${KINDS[@]}"; do echo -n " $k ${total[$1.$k]}"; done)"
}
count home
verify recovered

# one KIND N HOW FOR PLACE
one() {
	case="$*"
	local p=places_$5 n=$2
	[[ $n != @* ]] || n="1 NTH_SITE=${2#@}"
	# shellcheck disable=SC2086 # two words
	session NTH_UNDER="${!p}" ${MATCH:+NTH_MATCH="$MATCH"} NTH_CALLS="$1" NTH_HOW="$3" NTH_FOR="$4" NTH_N=$n
	echo "${MATCH:+MATCH=$MATCH }$case: $(faults) faults, $([ $failures -eq 0 ] && echo "all was done" || echo "the program was told"), status $status"
	[ $status -lt 128 ] || [ "$1 $shot" = "mem 1" ] || wrong "the daemon died of signal $((status - 128))"
	# Two nodes may be lost, whatever they do.
	[ "$5" = home ] || [ "$1" = mem ] || [ "$failures $status" = "0 0" ] ||
		wrong "a node's failure is the program's"
	verify "${6:-}"
}

hows() {
	case $1 in
	mem) echo ENOMEM ;;
	read) echo EIO SHORT ;;
	write) echo EIO ENOSPC EDQUOT SHORT ;;
	sync) echo EIO ENOSPC EDQUOT ;;
	unlink) echo EIO ENOMEM ;;
	stat) echo EIO ENOMEM ;;
	*) echo EIO ENOSPC EDQUOT ENOMEM ;;
	esac
}

some() {
	local i kind how for place n list
	for i in $(seq "$COUNT"); do
		# What changes fails most.
		list=(write write write sync sync sync mem mem mem open rename trunc read read falloc unlink mkdir stat)
		draw ${#list[@]}
		kind=${list[drawn]}
		list=(home home home home node nodes)
		draw 6
		place=${list[drawn]}
		count $place
		[ "${total[$place.$kind]}" -gt 0 ] || place=home
		[ "${total[$place.$kind]}" -gt 0 ] || continue
		read -ra list <<<"$(hows $kind)"
		draw ${#list[@]}
		how=${list[drawn]}
		for=once
		draw 4
		[ $drawn -eq 0 ] && for=good
		draw "${total[$place.$kind]}"
		n=$((drawn + 1))
		# Once, and once more soon after.
		draw 4
		[ $for = once ] && [ $drawn -eq 0 ] && draw 40 && n=$n,$((n + 1 + drawn))
		one $kind $n "$how" $for $place $([ $((i % 8)) -eq 1 ] && echo recovered)
	done
}

# What runs into each of the files that a drive has, whatever calls come before.
fixed() {
	local match kind n how for place
	while read -r match kind n how for place; do
		MATCH=${match#-} one "$kind" "$n" "$how" $for $place
	done <<-END
		/data/ write 2 ENOSPC good home
		/data/ write 1 SHORT once home
		/data/ falloc 1 EIO good home
		meta.db-wal write 150 EIO good home
		meta.db-wal sync 20 EIO once home
		meta.db-wal write 200 ENOSPC good home
		- write 3 EIO good nodes
		- sync 2 ENOSPC good nodes
	END
}

# One of very many: what fails is said at the end, with all of them.
failed=()
try() {
	local p
	(one "$@") && return
	failed+=("$*")
	umount -l "$M" 2>/dev/null || fusermount3 -uz "$M" 2>/dev/null
	for p in $(pgrep -f "mount (-f )?v $M"); do kill -9 "$p" 2>/dev/null; done
}

wanted() { [[ " ${KIND:-$1} " == *" $1 "* ]]; }
# each FUNCTION: every n of every kind; places FUNCTION: every place of the program.
each() {
	local kind place n
	for place in home node nodes; do
		count $place
		for kind in "${KINDS[@]}"; do
			wanted "$kind" || continue
			for n in $(seq "${total[$place.$kind]}"); do "$1" "$kind" "$n" $place; done
		done
	done
}
places() {
	local kind place hash
	for place in home node nodes; do
		count $place
		echo "places below $place: $(wc -l <"$W/places-$place")"
		# Allocations, which are most of them, come last.
		{ grep -v '^mem ' "$W/places-$place"; grep '^mem ' "$W/places-$place"; } >"$W/places"
		while read -r kind hash _; do ! wanted "$kind" || "$1" "$kind" "@$hash" $place; done <"$W/places"
	done
}

# in_all_ways KIND N PLACE
in_all_ways() {
	local how for list at=$2
	# Memory is not below a directory.
	[ "$1" = mem ] && [ "$3" != home ] && return
	[[ $at != @* ]] || at=$((16#${at:1:8}))
	[ -z "${PART:-}" ] || [ $((at % ${PART#*/})) -eq $((${PART%/*} % ${PART#*/})) ] || return
	read -ra list <<<"$(hows "$1")"
	if [ "${HOWS:-}" ]; then
		draw ${#list[@]}
		how=${list[drawn]}
		draw 2
		for=once
		[ $drawn -eq 0 ] || for=good
		try "$1" "$2" "$how" $for "$3"
		return
	fi
	for how in "${list[@]}"; do
		for for in once good; do try "$1" "$2" "$how" $for "$3"; done
	done
}

# The negative control: bytes that were never written, and nobody is told.
lies() {
	case="control: contents are not written"
	begin NTH_UNDER="$W/home" NTH_MATCH=/data/ NTH_CALLS=write NTH_N=1 NTH_HOW=LIE NTH_FOR=good ||
		wrong "it cannot be mounted"
	stage first
	kill_volume
	wait $daemon
	refuted "writes that were none are not noticed"
}

# An fsync of contents fails: each descriptor of the file is told, and goes on being told; the
# drive takes no more changes and says why (`session` looks at all of that).
told() {
	case="an fsync of contents fails"
	session NTH_UNDER="$W/home" NTH_MATCH=/data/ NTH_CALLS=sync NTH_N=1 NTH_HOW=EIO
	eq "$(faults) $told" "1 1" "$case: $(cat "$W/trace")"
	grep -q "until the next mount" <<<"$refusal" || wrong "sync does not say why: $refusal"
	verify
}

[ "${CASE:-}" ] || { lies; told; }
if [ "${CASE:-}" ]; then
	# shellcheck disable=SC2086 # it is words
	one $CASE recovered
elif [ "${ALL:-}" ]; then
	if [ "$ALL" = each ]; then each in_all_ways; else places in_all_ways; fi
	[ ${#failed[@]} -eq 0 ] || fail "$(printf '%s; ' "${failed[@]}")"
elif [ "${COUNT:-}" ]; then
	some
else
	fixed
fi
