#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where 12 bytes in a row of what is secret lie.

leaks.py files NEEDLES PATH...   in files, and those below directories: NAME PATH for each hit
leaks.py mem NEEDLES PID         in the memory of a process, as root: NAME, and `locked` where the
                                 mapping can neither be swapped out nor be part of a core (VmFlags
                                 lo and dd of smaps), else `loose` and which mapping
leaks.py sizes DIR               blobs on a node whose length is none of net/FORMAT.md's classes

NEEDLES: lines "NAME HEX".  Status 0 also when something is found: the caller reads the lines.
"""
import os
import sys

RUN = 12
WINDOW, STRIDE = 6, 7  # any RUN bytes in a row hold a whole window


def needles(path):
    out = []
    with open(path) as f:
        for line in f:
            name, text = line.split()
            out.append((name, bytes.fromhex(text)))
    return out


def holds(hay, needle):
    """Any RUN bytes in a row of the needle (which has at least so many)?"""
    for at in range(0, len(needle) - WINDOW + 1, STRIDE):
        window = needle[at:at + WINDOW]
        if len(set(window)) < 3:
            continue
        found = hay.find(window)
        while found >= 0:
            left = 0
            while left < at and found - left > 0 and hay[found - left - 1] == needle[at - left - 1]:
                left += 1
            right = WINDOW
            while at + right < len(needle) and found + right < len(hay) and \
                    hay[found + right] == needle[at + right]:
                right += 1
            if left + right >= RUN:
                return True
            found = hay.find(window, found + 1)
    return False


def walk(paths):
    for path in paths:
        if not os.path.isdir(path):
            yield path
        for top, _, names in os.walk(path):
            for name in names:
                yield os.path.join(top, name)


def files(want, paths):
    for path in walk(paths):
        if not os.path.isfile(path):
            continue
        with open(path, "rb") as f:
            hay = f.read() + b"\0" + os.fsencode(path)
        for name, b in want:
            if holds(hay, b):
                print(name, path)


def mappings(pid):
    here = None
    with open("/proc/%s/smaps" % pid) as f:
        for line in f:
            word = line.split()
            if "-" in word[0] and not word[0].endswith(":"):
                start, end = (int(x, 16) for x in word[0].split("-"))
                here = [start, end, word[5] if len(word) > 5 else "anonymous", 0]
            elif word[0] in ("Rss:", "Swap:"):
                here[3] += int(word[1])
            elif word[0] == "VmFlags:":
                yield (*here, word[1:])


def memory(want, pid):
    seen = set()
    with open("/proc/%s/mem" % pid, "rb", 0) as mem:
        for start, end, what, kib, flags in mappings(pid):
            if not kib or "io" in flags or what.startswith("[") and what not in ("[heap]", "[stack]"):
                continue
            safe = "lo" in flags and "dd" in flags
            at, tail = start, b""
            while at < end:
                try:
                    mem.seek(at)
                    piece = mem.read(min(16 << 20, end - at))
                except OSError:
                    break
                if not piece:
                    break
                for name, b in want:
                    if holds(tail + piece, b):
                        seen.add((name, "locked" if safe else "loose", "" if safe else what))
                tail = piece[-64:]
                at += len(piece)
    for one in sorted(seen):
        print(*one)


def padme(n):
    """Is n a length that Padme makes?"""
    if n < 4:
        return n >= 0
    e = n.bit_length() - 1
    s = e.bit_length()
    return n & ((1 << (e - s)) - 1) == 0


def class_of(path, name, size):
    kind = name[:3]
    if kind.startswith("s/"):
        # One cell of 4 KiB, or rows of 8 KiB: a few, 8 times a Padme length, those of a full segment.
        if size == 128 + 4096 + 32:
            return True
        rows, rest = divmod(size - 128, 8192 + 32)
        full = [-(-(1 << 24) // 8192 // k) for k in range(1, 33)]
        if rest == 0 and (rows in (1, 2, 4, 8) or rows % 8 == 0 and padme(rows // 8) or rows in full):
            return True
        return False
    with open(path, "rb") as f:
        magic = f.read(8)
    if magic in (b"HFCOMMT1", b"HFSNAPS1"):
        return padme(size - 26 - 40 - 64)
    if magic == b"HFTAKEO1":
        return size == 26 + 40 + 12 + 64
    if magic == b"HFROSTR1":
        return padme(size - 34 - 40 - 64)
    if magic == b"HFVOLHD1":
        return padme(size - (8 + 2 + 2 + 16 + 4 + 2 + 64 + 112) - 40 - 64)
    return magic == b"HFEPOCH1" and size == 20 or name == "v/node" and size == 40


def sizes(root):
    for path in walk([root]):
        name = os.path.relpath(path, root)
        if not class_of(path, name, os.path.getsize(path)):
            print(name, os.path.getsize(path))


if sys.argv[1] == "files":
    files(needles(sys.argv[2]), sys.argv[3:])
elif sys.argv[1] == "mem":
    memory(needles(sys.argv[2]), sys.argv[3])
else:
    sizes(sys.argv[2])
