# SPDX-License-Identifier: GPL-3.0-or-later
# kill -9 before or after the n-th call of a session that changes or syncs something on the local
# disk or on a node: while it writes, syncs, cuts, publishes, gives up, repairs, replaces a node,
# collects garbage.  What was acknowledged is there after the next mount, which goes on with all
# of it.  COUNT (24) random n; ALL=1 is every n (`make nth`: hours), FROM='place n' on where one
# run of them ended; CASE='n how place' is one.
. "$(dirname "$0")/nth-lib.sh"
COUNT=${COUNT:-24}
CHANGES=write,sync,open,rename,trunc,unlink,falloc,mkdir
prepare

declare -A where=([all]="$W/home:$W/n" [home]="$W/home" [nodes]="$W/n") total
case="nothing kills"
for place in "${!where[@]}"; do
	whole NTH_UNDER="${where[$place]}" NTH_CALLS=$CHANGES
	# All that a drive does is in it: shards come, move to the new node, are rebuilt, go.
	[ $place = home ] || [ "$(kind_count 6)" -gt 0 ] || fail "no shard was deleted"
	[ $place = home ] || [ -n "$(ls "$W/n/7/s" 2>/dev/null)" ] || fail "nothing moved to the new node"
	total[$place]=$(counted)
	echo "calls below $place: ${total[$place]}"
done
verify recovered

# one N HOW PLACE
one() {
	case="$*"
	session NTH_UNDER="${where[$3]}" NTH_CALLS=$CHANGES NTH_N="$1" NTH_HOW="$2"
	echo "$1 $2 $3: $([ $status -eq 137 ] && cut -d ' ' -f 1,3 "$W/report" || echo "ended before, status $status")"
	[ $status -eq 137 ] || [ $status -eq 0 ] || wrong "the daemon ended with status $status"
	verify "${4:-}"
}

# The negative control: what fsync acknowledged went nowhere.
lies() {
	case="control: commits that are none"
	begin NTH_UNDER="$W/home" NTH_MATCH=meta.db-wal NTH_CALLS=write NTH_N=1 NTH_HOW=LIE \
		NTH_FOR=good || wrong "it cannot be mounted"
	stage first
	kill_volume
	wait $daemon
	refuted "commits that were none are not noticed"
}

if [ "${CASE:-}" ]; then
	# shellcheck disable=SC2086 # it is words
	one $CASE recovered
elif [ "${ALL:-}" ]; then
	read -r first from <<<"${FROM:-home 1}"
	for place in home nodes; do
		[ "$first $place" = "nodes home" ] && continue
		for n in $(seq "$from" "${total[$place]}"); do
			for how in KILL DIE; do one "$n" $how $place; done
		done
		from=1
	done
else
	lies
	for i in $(seq "$COUNT"); do
		how=KILL
		draw 2
		[ $drawn -eq 0 ] && how=DIE
		list=(home home nodes)
		draw 3
		place=${list[drawn]}
		draw "${total[$place]}"
		one $((drawn + 1)) $how $place $([ $((i % 8)) -eq 0 ] && echo recovered)
	done
fi
