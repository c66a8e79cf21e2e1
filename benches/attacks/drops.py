"""Connections dropped in every phase: what of them stays.

A first tenth warms up; what it leaves is compared with what the other nine tenths leave.
"""

import contextlib
import multiprocessing
import os
import random
import socket
import ssl
import struct
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import Callable

import frames
from gateway import WORKERS, Gateway
from h1_attacks import HOST, client_hello
from h2_attacks import HELLO, LARGE, POST
from honest import Figures, Honest, trusting
from machine import wait_for
from measure import MEBIBYTE, chosen, in_words

PROCESSES = 4
# Connections that are open at the same time, in each process; and where they wait for a worker: fewer than there is room for.
AT_ONCE, AT_ONCE_IN_THE_ROOM = 50, 20
PATIENCE = 5
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# What nine tenths of the connections may leave of memory, for the allocator's sake.
MOST_GROWN = 8 * MEBIBYTE


@dataclass(frozen=True)
class Phase:
    """`first` is sent; then `answered` bytes of an answer are awaited, or that the gauge `until` is not 0, and the connection is
    dropped. `held`: all workers are taken meanwhile. `share` weighs it against the others."""

    name: str
    first: Callable = lambda: b""
    answered: int = 0
    tls: str = ""  # the protocol, when there is to be a handshake
    port: str = "plain"
    share: float = 1
    held: bool = False
    until: str = ""
    at_once: int = AT_ONCE


def get(path, *fields):
    return b"GET %s HTTP/1.1\r\n" % path + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def post(framing, body):
    return b"POST /take HTTP/1.1\r\n" + HOST + framing + b"\r\n\r\n" + body


def same(data):
    return lambda: data


UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + b"a" * 22 + b"==")
WAITING, IN_FLIGHT = 'hostler_waiting{upstream="app"}', 'hostler_in_flight{upstream="app"}'
UPLOAD = HELLO + frames.headers(1, POST, end_stream=False) + frames.frame(frames.DATA, 0, 1, b"x" * 1000)
WAITS = {"held": True, "until": WAITING, "at_once": AT_ONCE_IN_THE_ROOM}
LONG = {"share": 0.1, "at_once": AT_ONCE_IN_THE_ROOM}

PHASES = [
    Phase("connected"),
    Phase("half a handshake", client_hello, port="tls"),
    Phase("after the handshake, h1", tls="h1", port="tls"),
    Phase("after the handshake, h2", tls="h2", port="tls"),
    Phase("half a head", same(get(b"/fast")[:30])),
    Phase("request, answer not read", same(get(b"/up"))),
    Phase("body by length", same(post(b"Content-Length: 5000", b"x" * 1000))),
    Phase("body in chunks", same(post(b"Transfer-Encoding: chunked", b"3e8\r\n" + b"x" * 1000 + b"\r\n"))),
    Phase("waiting in the room", same(get(b"/fast?by=attack")), **WAITS),
    Phase("at work", same(get(b"/work?ms=5")), share=0.25, until=IN_FLIGHT, at_once=AT_ONCE_IN_THE_ROOM),
    Phase("answer half read", same(get(b"/large?mib=1")), answered=1000, **LONG),
    Phase("h2 preface", same(frames.PREFACE)),
    Phase("h2 settings, answered", same(HELLO), answered=9),
    Phase("h2 upload", same(UPLOAD)),
    Phase("h2 upload over TLS", same(UPLOAD), tls="h2", port="tls"),
    Phase("h2 waiting", same(HELLO + frames.headers(1, frames.request(b"GET", b"/fast?by=attack"))), **WAITS),
    Phase("h2 answer half read", same(HELLO + frames.headers(1, LARGE)), answered=1000, **LONG),
    Phase("upgrade refused", same(get(b"/fast", *UPGRADE)), answered=12),
    Phase("upgrade, answer not read", same(get(b"/fast", *UPGRADE))),
]


class Dropper:
    """One process' part of one phase."""

    def __init__(self, phase, ports):
        self.phase, self.turn = phase, os.getpid()
        self.address = ("127.0.0.1", ports[phase.port])
        self.context = trusting("h2" if phase.tls == "h2" else "http/1.1") if phase.tls else None
        self.admin = ports["admin"]
        self.counts = Counter()

    def drop(self, count):
        while count > 0:
            batch = min(self.phase.at_once, count)
            self.batch(batch)
            count -= batch
        return self.counts

    def batch(self, count):
        connections = []
        for number in range(count):
            self.turn += 1
            try:
                connections.append((self.open(f"127.0.7.{1 + self.turn % 40}"), number % 2))
            except (OSError, ssl.SSLError) as error:
                self.counts[f"not made: {type(error).__name__}"] += 1
        self.wait([connection for connection, _ in connections])
        for connection, by_reset in connections:
            self.close(connection, by_reset)
        self.counts["dropped"] += len(connections)

    def open(self, source):
        sock = socket.socket()
        try:
            sock.settimeout(PATIENCE)
            sock.bind((source, 0))
            sock.connect(self.address)
            if self.context:
                sock = self.context.wrap_socket(sock, server_hostname="localhost")
            if first := self.phase.first():
                sock.sendall(first)
        except (OSError, ssl.SSLError):
            sock.close()
            raise
        return sock

    def wait(self, connections):
        # From at once to long enough for the gateway to have seen it all.
        time.sleep(random.uniform(0, 0.02))
        until = time.monotonic() + 1
        while self.phase.until and not self.is_reached() and time.monotonic() < until:
            time.sleep(0.005)
        for sock in connections if self.phase.answered else ():
            try:
                got = 0
                while got < self.phase.answered and (data := sock.recv(self.phase.answered - got)):
                    got += len(data)
                self.counts["answered" if got >= self.phase.answered else "not answered"] += 1
            except (OSError, ssl.SSLError) as error:
                self.counts[f"not answered: {type(error).__name__}"] += 1

    def is_reached(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            return f"{self.phase.until} 0\n" not in answer.read().decode()

    @staticmethod
    def close(sock, by_reset):
        if by_reset:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            except OSError:
                pass
        sock.close()


def part(name, ports, count):
    """In a process of the pool."""
    phase = next(phase for phase in PHASES if phase.name == name)
    return Dropper(phase, ports).drop(count)


@contextlib.contextmanager
def workers_taken(gateway, app):
    """Every worker is busy with a request that does not end."""
    app.hold_workers()
    holders = []
    try:
        for _ in range(WORKERS):
            holders.append(socket.create_connection(("127.0.0.1", gateway.plain)))
            holders[-1].sendall(get(b"/gate"))
        wait_for(lambda: gateway.series().get(IN_FLIGHT) == WORKERS, 10, "all workers are taken")
        yield
    finally:
        app.release_workers()
        for holder in holders:
            holder.settimeout(PATIENCE)
            holder.recv(100)
            holder.close()


@dataclass
class Look:
    """The gateway at rest."""

    rss: int
    descriptors: int
    series: set

    @classmethod
    def at(cls, gateway):
        return cls(gateway.rss(), gateway.descriptors(), set(gateway.series()))


class Drops:
    def __init__(self, gateway, app, pool, phases):
        self.gateway, self.app, self.pool, self.phases = gateway, app, pool, phases
        self.ports = {"plain": gateway.plain, "tls": gateway.tls, "admin": gateway.admin}
        self.descriptors = gateway.descriptors()

    def through_all(self, connections):
        """Each phase with its share of the connections. Returns a row for each."""
        weight = sum(phase.share for phase in self.phases)
        return [self.through(phase, round(connections * phase.share / weight)) for phase in self.phases]

    def through(self, phase, count):
        begin = time.monotonic()
        shares = [count // PROCESSES + (number < count % PROCESSES) for number in range(PROCESSES)]
        with workers_taken(self.gateway, self.app) if phase.held else contextlib.nullcontext():
            counts = sum(self.pool.starmap(part, [(phase.name, self.ports, share) for share in shares]), Counter())
        seconds = time.monotonic() - begin
        left = self.gateway.settle(descriptors=self.descriptors)
        dropped = counts.pop("dropped", 0)
        row = {"phase": phase.name, "asked": count, "dropped": dropped, "per_second": round(dropped / seconds)}
        row |= {"noted": dict(counts), "left": left, "rss": self.gateway.rss()}
        print(
            f"  {phase.name:<26} {dropped:>7,} {row['per_second']:>7,}/s  {row['rss'] / MEBIBYTE:>5.1f} MiB  "
            f"{'left: ' + left if left else 'nothing left'}{'; ' + in_words(counts) if counts else ''}",
            flush=True,
        )
        return row


def run(options, app, certificate):
    """Connections opened and dropped in every phase, by close and by reset."""
    phases = chosen(PHASES, options.only)
    # Made before there is anything to inherit.
    with (
        multiprocessing.Pool(PROCESSES) as pool,
        Gateway(options.hostler, app, certificate, options.limits, "", options.descriptors) as gateway,
    ):
        Honest(gateway, options.rate, 2).answers()
        gateway.settle()
        drops = Drops(gateway, app, pool, phases)
        print("Half of them by close, half by reset, from 40 addresses. The first tenth, which warms up:")
        rows = drops.through_all(options.connections // 10)
        warm = Look.at(gateway)
        print("The rest:")
        rows += drops.through_all(options.connections - options.connections // 10)
        after = Look.at(gateway)
        figures = Figures.of(Honest(gateway, options.rate, 3).answers())
        left = gateway.settle(descriptors=drops.descriptors)
        dropped = sum(row["dropped"] for row in rows)
        verdicts = {
            "all dropped": dropped == sum(row["asked"] for row in rows),
            "nothing left": not left,
            "descriptors": after.descriptors <= drops.descriptors,
            "memory": after.rss - warm.rss < MOST_GROWN,
            "series": after.series == warm.series,
            "serves": figures.answered == figures.asked > 0,
        }
        print(
            f"\n{dropped:,} dropped. Descriptors {drops.descriptors} before, {after.descriptors} after. Memory "
            f"{warm.rss / MEBIBYTE:.1f} MiB after the first tenth, {after.rss / MEBIBYTE:.1f} after all "
            f"({(after.rss - warm.rss) / max(1, dropped):.1f} bytes each). Series of metrics {len(warm.series)}, then {len(after.series)}"
            f"{': ' + ', '.join(sorted(after.series ^ warm.series)[:5]) if after.series != warm.series else ''}. "
            f"{len(gateway.log_lines())} lines in the log. Honest answers afterwards: {figures.answered} of {figures.asked}."
        )
        for name, holds in verdicts.items():
            print(f"  {name}: {'ok' if holds else 'NOT ok'}")
        result = {"phases": rows, "verdicts": verdicts, "dropped": dropped, "descriptors": [drops.descriptors, after.descriptors]}
        result |= {"rss": [warm.rss, after.rss], "series": [len(warm.series), len(after.series)]}
        return all(verdicts.values()), [result]
