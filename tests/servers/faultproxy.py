#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""
faultproxy: stands before one HTTP/1.1 server on loopback and does to requests and answers
what networks and servers do on bad days.

    faultproxy.py DIR PORT TARGET_PORT [--cert FILE] [--target-tls]

DIR/ctl is a Unix socket that speaks HTTP: POST a JSON list of rules, and they hold from the
answer on; GET tells how often each has been applied.  DIR/requests gets a line for every
request, when its head has been read, "> METHOD PATH [FAULT]...", and one for every answer
that is given, "< STATUS METHOD PATH".  --cert (certificate and key in one file): PORT speaks TLS.  --target-tls:
the server does.

A rule: {"do": FAULT, "match": regular expression on "METHOD PATH", "p": probability,
"count": at most so often, ...}.  Of each FAULT the first rule that matches is applied.

  refuse              the port is closed and all connections are reset (no match)
  hole                the request is swallowed, nothing is answered
  mute                the request is done, nothing is answered
  status  code=503 headers={} body=""    answered so, not passed on
  garbage             answered with bytes that are not HTTP
  latency ms=100 jitter=0                waits before the request is passed on
  late    ms=1000     waits before the answer
  slow    rate=10000  bytes a second, both directions
  reset   bytes=-1    the connection is reset: at once, or after so many bytes of the answer
  lostack             the request is done; the connection is reset instead of an answer
  zombie  ms=3000 code=503   answered so at once; the request is done that much later
  dup                 the request is done twice
  cutup   bytes=1     so many bytes of the request's body are passed on, then both ends are cut
  clip    bytes=-1    only so many bytes of the request's body (-1: half of them) are passed on, as
                      if they were all: the server stores these and says so
  cut     bytes=-1 length=true   the answer's body ends after so many bytes (-1: half of
                      them); length=false: with nothing that says how long it should be
  stall   bytes=-1    the answer stops there for ever
  corrupt at=-1       a bit of the answer's body is flipped (-1: anywhere)
  stale               of what is put from now on nothing is seen: 404, and older listings
  whole               Range is ignored: 200 and all of it
  gzip                the answer is compressed, and says so

Requests and answers are stored and forwarded, each over a connection of its own.  Host passes
unchanged, so signatures made for the proxy's own address hold if the server accepts the name.
"""
import argparse
import asyncio
import gzip
import json
import os
import random
import re
import socket
import ssl
import struct
import sys

rnd = random.Random(int(os.environ.get("SEED", "1")))


class Cut(Exception):
    """This connection ends here."""


class Proxy:
    def __init__(self, args):
        self.args = args
        self.rules = []
        self.conns = set()
        self.server = None
        self.old = None         # listings by request line, as of when "stale" began
        self.listings = {}
        self.fresh = set()      # paths put since then
        self.tasks = set()
        self.log = open(os.path.join(args.dir, "requests"), "a", buffering=1)
        self.tls_in = self.tls_out = None
        if args.cert:
            self.tls_in = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls_in.load_cert_chain(args.cert)
        if args.target_tls:
            self.tls_out = ssl._create_unverified_context()

    # -- rules

    async def set_rules(self, rules):
        for r in rules:
            r["used"] = 0
            r["re"] = re.compile(r.get("match", ""))
        self.rules = rules
        kinds = {r["do"] for r in rules}
        if "stale" not in kinds:
            self.old = None
        elif self.old is None:
            self.old, self.fresh = dict(self.listings), set()
        if "refuse" in kinds:
            await self.close()
        elif self.server is None:
            await self.open()

    def pick(self, line):
        found = {}
        for r in self.rules:
            if (r["do"] not in found and r["used"] < r.get("count", 1 << 60) and
                    r["re"].search(line) and rnd.random() < r.get("p", 1)):
                r["used"] += 1
                found[r["do"]] = r
        return found

    async def open(self):
        # A connection that is just going away may still hold the port for a moment.
        for _ in range(100):
            try:
                self.server = await asyncio.start_server(
                    self.client, "127.0.0.1", self.args.port, ssl=self.tls_in, limit=1 << 20,
                    backlog=512, reuse_address=True)
                return
            except OSError as e:
                error = e
                await asyncio.sleep(0.05)
        sys.exit(f"faultproxy: port {self.args.port}: {error}")

    async def close(self):
        if self.server:
            self.server.close()
            self.server = None
        for w in list(self.conns):
            reset(w)

    # -- one connection of a client

    async def client(self, r, w):
        self.conns.add(w)
        try:
            while await self.request(r, w):
                pass
        except (Cut, OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self.conns.discard(w)
            w.close()

    async def request(self, r, w):
        first, head = await read_head(r)
        method, path, _ = first.split(" ", 2)
        line = f"{method} {path}"
        do = self.pick(line)
        self.log.write(" ".join([">", line, *do]) + "\n")
        if "hole" in do:
            while await r.read(1 << 16):
                pass
            raise Cut
        if "reset" in do and do["reset"].get("bytes", -1) < 0:
            reset(w)
            raise Cut
        if "latency" in do:
            x = do["latency"]
            await asyncio.sleep((x.get("ms", 100) + rnd.random() * x.get("jitter", 0)) / 1000)
        rate = do["slow"].get("rate", 10000) if "slow" in do else 0
        if value(head, "expect"):
            w.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = without(head, "expect")
        if "cutup" in do:
            await self.cut_upload(r, w, first, head, do["cutup"].get("bytes", 1))
        body = await read_body(r, head, False, rate)
        if "whole" in do:
            head = without(head, "range", "if-range")
        if "clip" in do:
            n = do["clip"].get("bytes", -1)
            body = body[:len(body) // 2 if n < 0 else n]

        if "status" in do:
            x = do["status"]
            answer = f"HTTP/1.1 {x.get('code', 503)} Injected", list(x.get("headers", {}).items()), \
                x.get("body", "").encode()
        elif "zombie" in do:
            x = do["zombie"]
            self.later(x.get("ms", 3000) / 1000, line, first, head, body)
            answer = f"HTTP/1.1 {x.get('code', 503)} Injected", [], b""
        elif self.old is not None and self.is_stale(method, path, line) and "stale" in do:
            answer = self.old.get(line) or ("HTTP/1.1 404 Not Found", [], b"")
        else:
            if "dup" in do:
                await self.exchange(first, head, body)
            answer = await self.exchange(first, head, body)
            self.remember(method, path, line, answer)
        if "late" in do:
            await asyncio.sleep(do["late"].get("ms", 1000) / 1000)
        if "mute" in do:
            await r.read(1)
            raise Cut
        if "lostack" in do:
            reset(w)
            raise Cut
        if "garbage" in do:
            w.write(rnd.randbytes(300) + b"\r\n\r\n")
            await w.drain()
            raise Cut
        await self.give(w, method, line, answer, do, rate)
        return True

    async def give(self, w, method, line, answer, do, rate):
        status, head, body = answer
        code = int(status.split(" ")[1])
        bare = method == "HEAD" or code in (204, 304)
        if "corrupt" in do and body:
            at = do["corrupt"].get("at", -1)
            at = rnd.randrange(len(body)) if at < 0 else min(at, len(body) - 1)
            body = bytearray(body)
            body[at] ^= 1 << rnd.randrange(8)
            body = bytes(body)
        if "gzip" in do and not bare:
            body = gzip.compress(body)
            head = head + [("Content-Encoding", "gzip")]
        if not bare:
            head = without(head, "content-length")
        head = without(head, "transfer-encoding", "connection", "keep-alive")
        stop = None
        for kind in ("cut", "stall", "reset"):
            if kind in do:
                stop = kind
                n = do[kind].get("bytes", -1)
                n = len(body) // 2 if n < 0 else n
        if stop == "cut" and not do["cut"].get("length", True):
            head = head + [("Connection", "close")]
        elif not bare:
            head = head + [("Content-Length", str(len(body)))]
        self.log.write(f"< {code} {line}\n")
        w.write(as_bytes(status, head))
        await write_body(w, b"" if bare else body[:n] if stop else body, rate)
        if stop == "stall":
            while True:
                await asyncio.sleep(3600)
        if stop == "reset":
            reset(w)
        if stop:
            raise Cut

    # -- the server's side

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.args.target_port, ssl=self.tls_out,
                                             limit=1 << 20)

    async def exchange(self, first, head, body):
        head = without(head, "connection", "transfer-encoding", "content-length")
        head = head + [("Connection", "close")]
        if body or first.split(" ", 1)[0] in ("PUT", "POST"):
            head = head + [("Content-Length", str(len(body)))]
        tr, tw = await self.connect()
        try:
            tw.write(as_bytes(first, head))
            try:
                await write_body(tw, body, 0)
            except OSError:
                pass            # it has answered before it read everything
            while True:
                status, answer = await read_head(tr)
                if not status.split(" ")[1].startswith("1"):
                    break
            bare = first.startswith("HEAD ") or status.split(" ")[1] in ("204", "304")
            return status, answer, b"" if bare else await read_body(tr, answer, True, 0)
        finally:
            tw.close()

    async def cut_upload(self, r, w, first, head, n):
        part = await r.read(max(n, 1))
        _, tw = await self.connect()
        tw.write(as_bytes(first, head) + part[:n])
        await tw.drain()
        tw.close()
        reset(w)
        raise Cut

    def later(self, delay, line, first, head, body):
        async def run():
            await asyncio.sleep(delay)
            status, _, _ = await self.exchange(first, head, body)
            self.log.write(f"z {status.split(' ')[1]} {line}\n")
        t = asyncio.create_task(run())
        self.tasks.add(t)
        t.add_done_callback(self.tasks.discard)

    def is_stale(self, method, path, line):
        return path in self.fresh if method in ("GET", "HEAD") and "list-type" not in path \
            else line in self.old

    def remember(self, method, path, line, answer):
        if method == "PROPFIND" or "list-type" in path:
            self.listings[line] = answer
        if method == "PUT" and self.old is not None:
            self.fresh.add(path)

    # -- control

    async def control(self, r, w):
        try:
            first, head = await read_head(r)
            body = await read_body(r, head, False, 0)
            status = "HTTP/1.1 200 OK"
            try:
                if first.startswith("POST "):
                    await self.set_rules(json.loads(body))
                text = json.dumps([{k: v for k, v in x.items() if k != "re"} for x in self.rules])
            except (ValueError, KeyError, TypeError, re.error) as e:
                status, text = "HTTP/1.1 400 Bad", str(e)
            w.write(as_bytes(status, [("Content-Length", str(len(text) + 1))]) + text.encode() + b"\n")
            await w.drain()
        finally:
            w.close()


def value(head, name):
    return next((v for k, v in head if k.lower() == name), "")


def without(head, *names):
    return [(k, v) for k, v in head if k.lower() not in names]


def as_bytes(first, head):
    return ("\r\n".join([first, *(f"{k}: {v}" for k, v in head)]) + "\r\n\r\n").encode("latin1")


async def read_head(r):
    raw = await r.readuntil(b"\r\n\r\n")
    first, *rest = raw[:-4].decode("latin1").split("\r\n")
    return first, [(k, v.strip()) for k, v in (x.split(":", 1) for x in rest)]


async def read_body(r, head, to_end, rate):
    body = bytearray()
    if "chunked" in value(head, "transfer-encoding"):
        while True:
            n = int((await r.readline()).split(b";")[0], 16)
            body += await r.readexactly(n)
            await r.readline()
            if n == 0:
                return bytes(body)
    length = value(head, "content-length")
    want = int(length) if length else 1 << 40 if to_end else 0
    while len(body) < want:
        piece = await r.read(min(want - len(body), 1 << 14 if rate else 1 << 18))
        if not piece:
            if length:
                raise EOFError
            break
        body += piece
        if rate:
            await asyncio.sleep(len(piece) / rate)
    return bytes(body)


async def write_body(w, body, rate):
    step = max(1, min(1 << 14, rate // 10)) if rate else 1 << 18
    for i in range(0, len(body), step):
        w.write(body[i:i + step])
        await w.drain()
        if rate:
            await asyncio.sleep(len(body[i:i + step]) / rate)
    await w.drain()


def reset(w):
    s = w.get_extra_info("socket")
    if s and s.fileno() >= 0:   # its client may have gone a moment ago
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    w.transport.abort()


async def main():
    p = argparse.ArgumentParser()
    p.add_argument("dir")
    p.add_argument("port", type=int)
    p.add_argument("target_port", type=int)
    p.add_argument("--cert")
    p.add_argument("--target-tls", action="store_true")
    proxy = Proxy(p.parse_args())
    await proxy.open()
    ctl = os.path.join(proxy.args.dir, "ctl")
    if os.path.exists(ctl):
        os.unlink(ctl)
    async with await asyncio.start_unix_server(proxy.control, ctl) as s:
        await s.serve_forever()


asyncio.run(main())
