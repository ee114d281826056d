# SPDX-License-Identifier: GPL-3.0-or-later
# What a drive holds in daily use: mail delivered into a Maildir by several at once, SQLite's
# other journal modes under concurrent writers, locks of flock and lockf, a tree
# kept the same on both sides by unison.
. "$(dirname "$0")/lib.sh"
have python3
new_volume
mount_volume -o interval=1
cd "$M" || fail cd

# Four deliver (tmp, fsync, link to new), two readers move from new to cur, with flags.
cat >"$W/mail.py" <<'P'
import mailbox, os, sys, threading
path, EACH, WRITERS = sys.argv[1], 50, 4
box = mailbox.Maildir(path, create=True)
left, lock, seen, errors = WRITERS * EACH, threading.Lock(), {}, []
def guarded(f):
    def run(*a):
        try:
            f(*a)
        except BaseException as e:
            errors.append(repr(e))
    return run
@guarded
def deliver(w):
    b = mailbox.Maildir(path)
    for i in range(EACH):
        m = mailbox.MaildirMessage(f"Subject: {w}-{i}\n\n" + "x" * (i * 97) + "\n")
        b.add(m)
@guarded
def read():
    global left
    while not errors:
        with lock:
            if left == 0:
                return
        for name in os.listdir(path + "/new"):
            try:
                os.rename(f"{path}/new/{name}", f"{path}/cur/{name}:2,S")
            except FileNotFoundError:
                continue
            s = open(f"{path}/cur/{name}:2,S").readline().strip()
            with lock:
                seen[s] = seen.get(s, 0) + 1
                left -= 1
t = [threading.Thread(target=deliver, args=(w,)) for w in range(WRITERS)]
t += [threading.Thread(target=read) for _ in range(2)]
[x.start() for x in t]
[x.join() for x in t]
want = {f"Subject: {w}-{i}": 1 for w in range(WRITERS) for i in range(EACH)}
assert not errors, errors
assert seen == want, "a message is missing or came twice"
assert not os.listdir(path + "/tmp") and not os.listdir(path + "/new")
assert len(os.listdir(path + "/cur")) == WRITERS * EACH
P
timeout 120 python3 "$W/mail.py" "$M/Maildir" || fail "Maildir"

if command -v sqlite3 >/dev/null; then
	for mode in truncate persist memory off; do
		sqlite_writers $mode 25
	done
fi

# Counting under a lock: flock(1), and fcntl's by python; nothing is lost, nothing hangs.
echo 0 >count
for w in 1 2 3 4; do
	(for i in $(seq 25); do flock lockfile sh -c 'n=$(cat count); echo $((n + 1)) >count'; done) &
done
wait
eq "$(cat count)" 100 "flock"
cat >"$W/lockf.py" <<'P'
import fcntl, os, sys
for _ in range(200):
    with open(sys.argv[1], "r+") as f:
        fcntl.lockf(f, fcntl.LOCK_EX)
        n = int(f.read())
        f.seek(0)
        f.write(str(n + 1))
        f.flush()
P
for w in 1 2 3; do timeout 120 python3 "$W/lockf.py" count & done
wait
eq "$(cat count)" 700 "lockf"
flock lockfile sleep 100 & held=$!
for _ in $(seq 600); do flock -n lockfile true || break; sleep 0.05; done
flock -w 0.2 lockfile true && fail "a lock that was held"
kill -9 $held $(pgrep -P $held) 2>/dev/null
timeout 60 flock lockfile true || fail "a lock outlives who had it"

if command -v unison >/dev/null; then
	uni() { UNISON=$W/unison timeout 100 unison -batch -silent -times -owner=false -perms -1 "$M/here" "$W/there"; }
	ok "$TOOLS/mktree" "$W/all" 5
	mkdir here "$W/there"
	# It keeps files, directories and links; the rest of what mktree makes it refuses.
	(cd "$W/all" && find . \( -type f -size -1000k -o -type d -o -type l \) -print0 | sort -z | head -z -n 200 |
		tar --null --no-recursion --files-from=- -cf - 2>/dev/null) | tar -C "$W/there" -xf - 2>/dev/null
	chmod -R u+rwX "$W/there"
	uni >"$W/unison.log" 2>&1 || { tail "$W/unison.log"; fail unison; }
	ok diff -r --no-dereference "$W/there" here
	echo new >here/made-here && echo new >"$W/there/made-there" && mkdir here/newdir
	uni >"$W/unison.log" 2>&1 || { tail "$W/unison.log"; fail "unison, changes"; }
	ok diff -r --no-dereference "$W/there" here
	[ -e here/made-there ] && [ -e "$W/there/made-here" ] || fail "unison did nothing"
else
	echo "unison is not installed: it was left out"
fi
cd /
ok hf sync v --protected
tree "$M" >"$W/want"
umount_volume
mount_volume
tree "$M" >"$W/got"
diff "$W/want" "$W/got" || fail "not the same after a mount"
umount_volume
ok hf fsck v --nodes
