# SPDX-License-Identifier: GPL-3.0-or-later
# Nodes on file systems that hang in the kernel: mount, sync, umount and a mount that is
# stopped with a cut under way end in bounded time, and nothing is lost.
. "$(dirname "$0")/lib.sh"
# Each hanging place is a mount of a drive of its own, whose daemon is stopped.
urls=()
for i in 1 2 3; do urls+=(--node "dir:$W/n/$i"); done
mkdir -p "$W/n"
stopped=()
for i in 4 5 6; do
	mkdir "$W/in$i"
	ok hf create "in$i" --no-passphrase --kit "$W/kit$i.txt" >/dev/null
	ok hf mount "in$i" "$W/in$i" -o interval=3600
	urls+=(--node "dir:$W/in$i/node")
	stopped[i]=$(hf status "in$i" --json | jq -r .pid)
done
go() { for p in "${stopped[@]}"; do kill -CONT "$p" 2>/dev/null; done; }
trap 'rc=$?; go; (exit $rc); cleanup' EXIT
ok hf create v "${urls[@]}" --survive 2 --kit "$W/kit.txt" >/dev/null
within() { # seconds command...
	local s=$1 t0=$SECONDS
	shift
	ok timeout 100 "$@"
	echo "$((SECONDS - t0)) s: ${*:2}"
	[ $((SECONDS - t0)) -le "$s" ] || fail "took $((SECONDS - t0)) s: $*"
}
mount_volume
head -c 3000000 /dev/urandom >"$M/a"
ok hf sync v
kill -STOP "${stopped[5]}" "${stopped[6]}"
head -c 3000000 /dev/urandom >"$M/b"
within 30 "$HOLDFAST" sync v
sum=$(cat "$M/a" "$M/b" | sha256sum)
within 20 "$HOLDFAST" umount "$M"
within 20 "$HOLDFAST" mount v "$M"
eq "$(cat "$M/a" "$M/b" | sha256sum)" "$sum"
# With a third the next cut cannot end.
kill -STOP "${stopped[4]}"
head -c 3000000 /dev/urandom >"$M/c"
c=$(sha256sum <"$M/c")
sum=$(cat "$M/a" "$M/b" "$M/c" | sha256sum)
hf sync v --timeout 7 2>"$W/err" && fail "published without a quorum"
within 10 "$HOLDFAST" umount "$M" --now
within 20 "$HOLDFAST" mount v "$M"
eq "$(sha256sum <"$M/c")" "$c" "what is not published is here"
go
within 90 "$HOLDFAST" sync v --protected
eq "$(cat "$M/a" "$M/b" "$M/c" | sha256sum)" "$sum"
umount_volume
ok hf fsck v --nodes --deep >/dev/null
