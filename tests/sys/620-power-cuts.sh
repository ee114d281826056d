# SPDX-License-Identifier: GPL-3.0-or-later
# The power goes.  Cache and database of a drive are on ext4 and on xfs, on a disk that remembers
# each write and flush (power/recdisk).  Random operations run (power/stream), while the drive
# publishes, gives up and collects garbage; meanwhile the disk notes instants.  Of each, the disk
# is put together as a power cut may leave it: what was flushed, and of the rest anything.  The
# file system replays its journal, the drive is mounted, and has a state of its history with
# everything that was acknowledged, publishes, passes fsck, and is recovered from the nodes as it
# is here.  What the nodes had at that instant is a state of the drive, too, and not contradicted.
#	CUTS (40, with fewer operations in between); SEED; FS="ext4 xfs"; PER (20) cuts of one session; FULL (4; with CUTS 1): after each how many'th
#	cut it goes on and is checked; EVERY (8; with CUTS 4): each how many'th is recovered, before and after;
#	KEEP=1 keeps what a failure was seen in
#	WEAKEN: a mechanism that is left out (tools/preload/weaken)
# A seed repeats the operations, not how threads and disk met.
if [ -z "${TMPDIR:-}" ] && [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt 4000000 ]; then
	export TMPDIR=/dev/shm # nothing of this needs to be on a disk
fi
. "$(dirname "$0")/lib.sh"
have jq
have losetup
have mkfs.ext4
have mkfs.xfs
[ "$(id -u)" -eq 0 ] || skip "only root has loop devices"
losetup -f >/dev/null 2>&1 || skip "no loop devices here"
nm -D "$HOLDFAST" 2>/dev/null | grep -q '__[at]san_init' && skip "a sanitizer's output goes to files on the disk that is cut"
POWER=$B/power
[ -x "$POWER/stream" ] || fail "no $POWER/stream: run make tools first"
gaps=(150 300 300 600 1500) # operations from one cut to the next
[ "${CUTS:-}" ] || CUTS=40 EVERY=${EVERY:-8} FULL=${FULL:-4} gaps=(80 150 150 300 300)
PER=${PER:-20} EVERY=${EVERY:-4} FULL=${FULL:-1} THREADS=3 GAP=${GAP:-}
read -ra systems <<<"${FS:-ext4 xfs}"
[ "$CUTS" -ge $((PER * ${#systems[@]})) ] || PER=$(((CUTS + ${#systems[@]} - 1) / ${#systems[@]}))
for fs in "${systems[@]}"; do
	grep -qw "$fs" /proc/filesystems || modprobe "$fs" 2>/dev/null || skip "this kernel has no $fs"
done
export HOLDFAST_HOME=$W/disk/home HOLDFAST_PACE=grace=1,stray=1000,compact=100
OPTIONS=interval=1,cache_size=4M
LIMIT=${LIMIT:-180} # what no step takes, however slow the machine is
mkdir "$W/disk" "$W/rec"

# attach IMAGE FS: mounts a disk; the loop device goes with it.
attach() {
	local loop
	loop=$(losetup -f --show "$1") || fail "no loop device for $1"
	mount -t "$2" "$loop" "$W/disk" || { losetup -d "$loop"; wrong "$2 does not mount"; }
	losetup -d "$loop"
}
detach() {
	local i
	for i in $(seq 5000); do
		umount "$W/disk" 2>/dev/null && return 0
		sleep 0.02
	done
	umount "$W/disk" || wrong "the disk stays busy: $(fuser -vm "$W/disk" 2>&1)"
}
# step CMD...: its output is in $W/step; whatever fails, nothing hangs.
step() {
	local say=$*
	[ "$1" = hf ] && set -- "$HOLDFAST" "${@:2}"
	timeout -k 5 "$LIMIT" "$@" >"$W/step" 2>&1 </dev/null
	rc=$?
	[ $rc -eq 0 ] && return 0
	wrong "status $rc: $say: $(head -c 3000 "$W/step")"
}
case='at the start'
wrong() {
	echo "--- $case (SEED=$SEED)"
	[ -e "$HOLDFAST_HOME/v/log" ] && tail -n 20 "$HOLDFAST_HOME/v/log"
	[ "${KEEP:-}" ] && echo "log $W/log, images $W/base.*, $W/cut.img"
	fail "$case: $*"
}
# nodes DIR: what is on the nodes, as links: blobs are never changed in place.
nodes() {
	rm -rf "$W/n"
	cp -al "$1" "$W/n" || fail "copying nodes"
}

# A drive on a new file system, published.
prepare() {
	case="making a drive on $1"
	rm -rf "$W/n" "$W/base_n" "$W/kit.txt"
	truncate -s 512M "$W/base.$1" || fail "no room"
	if [ "$1" = ext4 ]; then # all at once: no thread of the kernel writes zeros later
		ok mkfs.ext4 -q -N 8192 -E lazy_itable_init=0,lazy_journal_init=0 "$W/base.$1"
	else
		ok "mkfs.$1" -q "$W/base.$1"
	fi
	attach "$W/base.$1" "$1"
	new_volume
	mount_volume -o "$OPTIONS"
	for i in $(seq 0 $((THREADS - 1))); do ok mkdir "$M/t$i"; done
	ok hf sync v --protected
	umount_volume
	detach
	mv "$W/n" "$W/base_n"
}

# Operations, until there are that many cuts.
session() {
	local recorder env=()
	case="$1, session $2"
	rm -rf "$W/log" "$W/ledger" "$W/snap"
	mkdir "$W/snap"
	nodes "$W/base_n"
	"$POWER/recdisk" run "$W/base.$1" "$W/log" "$W/rec" "$W/ledger" "$W/n" "$W/snap" "$2" >"$W/recorder" 2>&1 &
	recorder=$!
	until [ -e "$W/rec/disk" ]; do
		kill -0 $recorder 2>/dev/null || wrong "no disk: $(cat "$W/recorder")"
		sleep 0.02
	done
	attach "$W/rec/disk" "$1"
	rm -f "$W/weakened"
	[ "${WEAKEN:-}" ] && env=(WEAKEN="$WEAKEN" WEAKEN_LOG="$W/weakened" LD_PRELOAD="$B/tools/weaken.so")
	step env "${env[@]}" "$HOLDFAST" mount v "$M" -o "$OPTIONS"
	step "$POWER/stream" "$W/ledger" "$M" "$2" $THREADS "$3" "${GAP:-${gaps[$2 % 5]}}" "$(daemon_pid)" "$HOLDFAST" v "$HOLDFAST_HOME/v/data"
	sed 's/^/    /' "$W/step"
	[ -z "${WEAKEN:-}" ] || [ -e "$W/weakened" ] || wrong "nothing was left out"
	kill_volume
	detach
	umount "$W/rec" || wrong "the recorded disk stays busy"
	wait $recorder || wrong "the recorder: $(cat "$W/recorder")"
}

# recovered CMD...: in a home of its own, the drive recovered from the nodes and mounted.
recovered() {
	rm -rf "$W/home2"
	(
		export HOLDFAST_HOME=$W/home2
		step hf recover "$W/kit.txt" v
		step hf mount v "$M"
		"$@"
		step hf umount "$M"
	) || exit 1
	rm -rf "$W/home2"
}
published() {
	step "$POWER/found" "$W/ledger" "$W/snap/$cut/acked" "$M" published
	cp "$W/step" "$W/published"
}
same() {
	tree "$M" >"$W/got"
	diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; wrong "recovered, the tree differs"; }
}

# after FS CUT HOW SEED
after() {
	local least=() whole=
	cut=$2
	case="$1, seed $4, cut $2, $3"
	step "$POWER/recdisk" cut "$W/base.$1" "$W/log" "$2" "$W/cut.img" "$3" "$4"
	local what
	what=$(cat "$W/step")
	[ $((count % EVERY)) -eq 0 ] && whole=1
	nodes "$W/snap/$2/n"
	if [ $whole ]; then
		# What the nodes had when the power went.
		recovered published
		read -ra least <"$W/published"
		nodes "$W/snap/$2/n"
	fi
	attach "$W/cut.img" "$1"
	step hf mount v "$M" -o "$OPTIONS"
	step "$POWER/found" "$W/ledger" "$W/snap/$2/acked" "$M" "${least[@]:1}"
	echo "$case: $what: $(cat "$W/step")${whole:+; published:${least[*]:1}}"
	if [ $whole ] || [ $((count % FULL)) -eq 0 ]; then
		ok touch "$M/again"
		step hf sync v --protected
		tree "$M" >"$W/want"
		step hf umount "$M"
		step hf fsck v --nodes --deep
		[ $whole ] && recovered same
	else
		step hf umount "$M" --now
	fi
	detach
	rm -f "$W/cut.img"
}

count=0 round=0
hows=(lose keep mix mix mix tear tear tear)
for fs in "${systems[@]}"; do
	prepare "$fs"
	mv "$W/base_n" "$W/base_n.$fs"
	mv "$W/kit.txt" "$W/kit.$fs"
done
while [ $count -lt "$CUTS" ]; do
	fs=${systems[round % ${#systems[@]}]}
	round=$((round + 1))
	rm -rf "$W/base_n"
	cp -al "$W/base_n.$fs" "$W/base_n"
	cp "$W/kit.$fs" "$W/kit.txt"
	s=$(((SEED + round * 1000003) % 2000000000))
	session "$fs" $s "$PER"
	for i in $(seq 0 $((PER - 1))); do
		[ $count -lt "$CUTS" ] || break
		after "$fs" "$i" "${hows[RANDOM % 8]}" $((s + i))
		count=$((count + 1))
	done
done
echo "$count power cuts on ${systems[*]}: nothing lost"
