#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Negative controls (`make check-controls`, T=word selects some): each mechanism that a test shows
# is switched off, and that test must fail.  One line each:
#	name | how it is disabled: settings of the environment | the test that must fail | its words
# The words must stand in what the failing test says (a regular expression), so that it did not
# fail for another reason.  A test that passes, or is skipped, fails the control.
set -u
cd "$(dirname "$0")/.." || exit 2
B=$(realpath "${B:-build}")
export B HOLDFAST=$B/holdfast
table="
sqlite-normal | WEAKEN=normal CUTS=60 EVERY=1000 FULL=1000 | tests/sys/620-power-cuts.sh | status 1: .*power/found
data-sync     | WEAKEN=data CUTS=60 EVERY=1000 FULL=1000 | tests/sys/620-power-cuts.sh | status 1: .*power/found
intent        | WEAKEN=intent CUTS=60 EVERY=1 | tests/sys/620-power-cuts.sh | the tree differs
redo          | WEAKEN=redo CUTS=60 EVERY=1000 FULL=1000 | tests/sys/620-power-cuts.sh | status 1: .*power/found
sim-commit    | BREAK=commit | tests/sim/seeds.sh | recover
sim-fsync     | BREAK=fsync | tests/sim/seeds.sh | start:|publish: Stale
sim-sync      | BREAK=sync | tests/sim/seeds.sh | start:
sim-redo      | BREAK=redo | tests/sim/seeds.sh | start:
sim-intent    | BREAK=intent | tests/sim/seeds.sh | FAILED: seed
sim-scrub     | BREAK=scrub | tests/sim/seeds.sh | findings after repair
sim-capture   | BREAK=capture | tests/sim/seeds.sh | of no moment
sim-quorum    | BREAK=quorum | tests/sim/seeds.sh | recovered
"
pass=0 failed=()
log=$B/test-logs
mkdir -p "$log"
while IFS='|' read -r name how test words; do
	read -r name <<<"$name"
	read -r test <<<"$test"
	[ "$name" ] || continue
	if [ $# -gt 0 ]; then
		wanted=
		for w in "$@"; do [[ $name == *"$w"* ]] && wanted=1; done
		[ "$wanted" ] || continue
	fi
	read -ra set <<<"$how"
	words=${words# }
	t0=$SECONDS
	timeout -k 10 "${LIMIT:-1200}" env "${set[@]}" bash "$test" >"$log/control-$name.log" 2>&1 </dev/null
	rc=$?
	case $rc in
	0) why="passes without it" ;;
	77) why="was skipped: $(tail -n 1 "$log/control-$name.log")" ;;
	124 | 137) why="did not end" ;;
	*) why= ;;
	esac
	[ "$why" ] || grep -a -q -E -- "$words" "$log/control-$name.log" ||
		why="fails, but does not say '$words'"
	if [ "$why" ]; then
		failed+=("$name")
		printf 'FAIL  %-20s %4ds  %s %s (%s)\n' "$name" $((SECONDS - t0)) "$test" "$why" "$log/control-$name.log"
	else
		pass=$((pass + 1))
		printf 'ok    %-20s %4ds  %s fails\n' "$name" $((SECONDS - t0)) "$test"
	fi
done <<<"$table"
echo "$pass controls as they should be, ${#failed[@]} not${failed[*]:+: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ] && { [ $pass -gt 0 ] || [ $# -gt 0 ]; } # words may be for controls-source.sh alone
