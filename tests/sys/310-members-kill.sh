# SPDX-License-Identifier: GPL-3.0-or-later
# kill -9 at random instants while nodes come and go under a writer: what was begun goes on by
# itself after the next mount and comes to its end, nothing is lost, and the first kit opens it.
. "$(dirname "$0")/lib.sh"
have jq
ROUNDS=${ROUNDS:-1}
new_volume
# As the drive knows them: what was being uploaded at a kill may be left on a node besides.
shards() { hf node list v --json | jq "[.[] | select(.name == \"node-$1\") | .shards] | add // 0"; }
# It writes below a folder of the drive, so that it writes nothing while nothing is mounted.
busy() {
	local i=0
	while [ -e "$W/busy" ]; do
		i=$((i + 1))
		head -c $((RANDOM % 60000 + 1)) /dev/urandom 2>/dev/null >"$M/busy/$((i % 30))"
		sleep 0.05
	done 2>/dev/null
}
same() {
	tree "$M/t" >"$W/got"
	diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "$1: the tree differs"; }
}
# Is it so, or does it become so within some seconds?
becomes() {
	for _ in $(seq "$2"); do
		hf status v --json 2>/dev/null | jq -e "$1" >/dev/null && return 0
		sleep 0.2
	done
	return 1
}
# As kill_volume, of a daemon whose pid is known: asking for it takes longer than a change.
crash() {
	kill -9 "$1" || fail "no daemon"
	while kill -0 "$1" 2>/dev/null; do sleep 0.01; done
	umount -l "$M" 2>/dev/null || fusermount3 -uz "$M"
}
# killed END NODE ARGS...: begins a change, and kills while the command runs and once later.
# Only a change that the first kill was too early for is begun a second time, which may be refused:
# it had begun after all, and comes to its end later than one looks for that.
killed() {
	local end=$1 n=$2 ms rc pid
	shift 2
	ms=$((RANDOM % 120))
	pid=$(daemon_pid)
	hf node "$@" --no-wait >/dev/null 2>&1 &
	sleep "$(printf 0.%03d $ms)"
	crash "$pid"
	wait $!
	rc=$?
	echo "$1 node-$n: killed after $ms ms, the command's status was $rc"
	mount_volume -o interval=1
	if [ $rc -ne 0 ] && ! becomes "$end" 20; then
		hf node "$@" --no-wait >/dev/null 2>"$W/err"
		echo "$1 node-$n: begun again, with status $?: $(cat "$W/err")"
	fi
	ms=$((RANDOM % 400))
	pid=$(daemon_pid)
	sleep "$(printf 0.%03d $ms)"
	crash "$pid"
	echo "$1 node-$n: killed after $ms ms, $(shards "$n") shards are on it"
	mount_volume -o interval=1
	same "$*"
	until_status "$end" 400
}

mount_volume -o interval=1
make_tree "$M/t" "$SEED"
mkdir "$M/t/more" "$M/busy"
# Many segments, each a commit's.
for i in $(seq 30); do
	head -c $((RANDOM * 10 + 1)) /dev/urandom >"$M/t/more/$i" || fail "writing"
	ok hf sync v >/dev/null
done
tree "$M/t" >"$W/want"
ok hf sync v --protected >/dev/null
touch "$W/busy"
busy &
work=$!
old=2 new=7
for _ in $(seq "$ROUNDS"); do
	# The new one gets what is about its share.
	killed "([.nodes[].shards] | add / length) as \$mean | [.nodes[] | select(.name == \"node-$new\") |
		.member == \"member\" and .shards * 2 > \$mean] == [true]" \
		$new add v "dir:$W/n/$new" --rebalance
	killed "[.nodes[] | select(.name == \"node-$old\") | .member] == [\"drained\"]" $old drain v node-$old
	# Old copies are on it until a commit has named the new ones: the command waits for that.
	ok hf node drain v node-$old >/dev/null
	killed "[.nodes[] | select(.name == \"node-$old\")] == []" $old remove v node-$old
	killed "[.nodes[] | select(.name == \"node-$((old + 1))\")] == []" \
		$((old + 1)) replace v node-$((old + 1)) "dir:$W/n/$((new + 1))"
	mv "$W/n/$old" "$W/n/$((old + 1))" "$W/"
	old=$((old + 2)) new=$((new + 2))
done
rm "$W/busy"
wait $work
ok hf sync v --protected >/dev/null
until_status '.protected and .survives == 2'
tree "$M" >"$W/all"
umount_volume
ok hf fsck v --nodes --deep
mount_volume
same "mounted again"
umount_volume
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >"$W/recover.out" 2>&1
mount_volume
tree "$M" >"$W/got"
diff "$W/all" "$W/got" >"$W/diff" || { head "$W/diff"; fail "recovered, the tree differs"; }
umount_volume
