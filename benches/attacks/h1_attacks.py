"""Attacks on HTTP/1.1 and on TLS handshakes: slow ones, and floods."""

import asyncio
import ssl

from honest import trusting
from storm import Attack

HOST = b"Host: localhost\r\n"
UP = b"GET /up HTTP/1.1\r\n" + HOST + b"\r\n"
FAST = b"GET /fast?by=attack HTTP/1.1\r\n" + HOST + b"\r\n"
UPLOAD = b"POST /take HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = 16 << 10


def with_large_head(path):
    """90 fields and 31 KiB: near both limits."""
    fields = b"".join(b"X-%02d: %s\r\n" % (number, b"y" * 335) for number in range(88))
    return b"GET %s HTTP/1.1\r\n" % path + HOST + fields + b"\r\n"


def dribble(first, piece, pause=1):
    """Something whole, and then a little now and then."""

    async def script(wire):
        async def sending():
            await wire.send(first)
            while True:
                await asyncio.sleep(pause)
                await wire.send(piece)

        await wire.beside(sending())

    return script


def flood(first, piece, reading=True):
    async def script(wire):
        async def sending():
            if first:
                await wire.send(first)
            while True:
                await wire.send(piece * max(1, CHUNK // len(piece)))

        await wire.beside(sending(), reading)

    return script


def one_by_one(request):
    """Keep-alive: the next when the last is answered."""

    async def script(wire):
        while True:
            await wire.send(request)
            while not (await wire.hear()).endswith((b"ok", b"ok\n")):
                pass

    return script


async def one_and_close(wire):
    await wire.send(FAST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await wire.hear_all()


async def one_and_idle(wire):
    await wire.send(UP)
    await wire.hear_all()


def slow_reader(mebibytes):
    """Takes 256 bytes a second of a large answer."""
    request = b"GET /large?mib=%d HTTP/1.1\r\n" % mebibytes + HOST + b"\r\n"

    async def script(wire):
        await wire.send(request)
        while True:
            await wire.hear(256)
            await asyncio.sleep(1)

    return script


def client_hello():
    """What a client says first."""
    outgoing = ssl.MemoryBIO()
    handshake = trusting("h2").wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    try:
        handshake.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


async def handshake_begun(wire):
    await wire.send(client_hello())
    await wire.hear_all()


async def handshake_cut(wire):
    await wire.send(client_hello()[:100])
    await wire.hear_all()


MANY = {"protocol": "h1", "connections": 1000, "per_second": 400}
READERS = {"protocol": "h1", "connections": 1000, "per_second": 10, "receive_buffer": 4096}
FEW = {"protocol": "h1"}

ATTACKS = [
    Attack("slow-heads", "a header field every second", dribble(b"GET / HTTP/1.1\r\n" + HOST, b"X-a: b\r\n"), **MANY),
    Attack(
        "slow-bodies",
        "a byte of the body every second",
        dribble(b"POST /take HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n", b"x"),
        **MANY,
    ),
    # Slowly more of them: the answers cost the app something, and that is not what is measured.
    Attack("slow-readers", "256 bytes a second of 1 MiB", slow_reader(1), **(READERS | {"per_second": 50})),
    Attack("slow-readers-large", "256 bytes a second of 10 MiB", slow_reader(10), **READERS),
    Attack(
        "slow-readers-spool-full",
        "the same, the spool full after some 25 of them",
        slow_reader(10),
        **READERS,
        spool="memory: 32MiB, disk: 256MiB",
    ),
    Attack("handshakes-begun", "a ClientHello and nothing more", handshake_begun, **(MANY | {"protocol": "tls"})),
    Attack("handshakes-cut", "100 bytes of a ClientHello", handshake_cut, **(MANY | {"protocol": "tls"})),
    Attack(
        "keep-alive-idle",
        "5,000 connections idle after a request",
        one_and_idle,
        **(MANY | {"connections": 5000, "per_second": 700, "sources": 20}),
    ),
    Attack("pipelining", "requests without end, no answer read", flood(b"", UP, reading=False), **FEW),
    Attack("pipelining-worker", "the same to the app", flood(b"", FAST, reading=False), **FEW),
    Attack("chunk-extensions", "1 byte and 4 KiB of extension a chunk", flood(UPLOAD, b"1;" + b"e" * 4096 + b"\r\nx\r\n"), **FEW),
    Attack("chunk-extensions-small", "1 byte and 10 of extension a chunk", flood(UPLOAD, b"1;eeeeeeeeee\r\nx\r\n"), **FEW),
    Attack("tiny-chunks", "1 byte a chunk", flood(UPLOAD, b"1\r\nx\r\n"), **FEW),
    Attack("large-heads", "88 fields and 30 KiB a request", one_by_one(with_large_head(b"/up")), **FEW),
    Attack("large-heads-worker", "the same to the app", one_by_one(with_large_head(b"/fast?by=attack")), **FEW),
    Attack(
        "connection-per-request",
        "a new connection for each request, 500 a second",
        one_and_close,
        **(FEW | {"connections": 50, "per_second": 500}),
    ),
]
