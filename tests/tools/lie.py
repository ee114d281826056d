#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""lie.py HOW FILE [OTHER]: makes the blob FILE on a node another one, as a bad disk or server would.

flip (one bit at random), truncate, extend, empty, copy (the bytes of OTHER), swap (with OTHER),
range (two stretches of it change places: cells of a shard, halves of anything else).
SEED in the environment chooses what is random.
"""
import os
import random
import sys

HEADER, OVER = 128, 32  # of a shard: net/FORMAT.md


def exchange(b):
    """Two stretches of equal length, and never equal bytes."""
    for cell in (1 << n for n in range(16, 11, -1)):
        stride = cell + OVER
        if b[:8] == b"hf.shard" and len(b) >= HEADER + 2 * stride and (len(b) - HEADER) % stride == 0:
            first, second = b[HEADER:HEADER + stride], b[HEADER + stride:HEADER + 2 * stride]
            return b[:HEADER] + second + first + b[HEADER + 2 * stride:]
    half = len(b) // 2
    return b[half:2 * half] + b[:half] + b[2 * half:]


def main():
    how, path = sys.argv[1:3]
    other = sys.argv[3] if len(sys.argv) > 3 else None
    rnd = random.Random(os.environ.get("SEED", "") + path + how)
    with open(path, "rb") as f:
        b = f.read()
    was = b
    if how == "flip":
        at = rnd.randrange(len(b))
        b = b[:at] + bytes([b[at] ^ 1 << rnd.randrange(8)]) + b[at + 1:]
    elif how == "truncate":
        b = b[:rnd.choice([len(b) - 1, len(b) // 2, max(len(b) - 37, 1)])]
    elif how == "extend":
        b += bytes(rnd.randrange(256) for _ in range(rnd.choice([1, 32, 4096])))
    elif how == "empty":
        b = b""
    elif how in ("copy", "swap"):
        with open(other, "rb") as f:
            b = f.read()
        if how == "swap":
            with open(other, "wb") as f:
                f.write(was)
    elif how == "range":
        b = exchange(b)
    else:
        sys.exit("lie.py: how?")
    if b == was:
        sys.exit("lie.py: %s: %s changed nothing" % (path, how))
    with open(path, "wb") as f:
        f.write(b)


main()
