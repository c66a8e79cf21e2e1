"""The honest client: a steady rate over connections that stay, and over new ones, in a process of its own.

Requests are sent when they are due, whether or not the last one is answered already (open loop), and their time counts
from then: a gateway that stops for a second is late for everyone who came meanwhile.
"""

import asyncio
import multiprocessing
import re
import signal
import ssl
import time
from dataclasses import dataclass

import frames
from clients import percentile

PATIENCE = 10
FAST, PLAIN = "/fast?by=honest", "/up"


@dataclass
class Answer:
    """One request; `kind` is `ok`, or what happened instead. `due` is on the clock of time.monotonic()."""

    over: str
    due: float
    seconds: float
    kind: str


class Lost(Exception):
    """The connection ended in the middle of a request."""


class OverH1:
    """Keep-alive, one request after the other; `fresh`: a connection for each request."""

    def __init__(self, name, port, tls=None, fresh=False, source="127.0.0.1"):
        self.name, self.port, self.tls, self.fresh, self.source = name, port, tls, fresh, source
        self.turn = asyncio.Lock()
        self.reader = self.writer = None

    async def ask(self, path):
        async with self.turn:
            if self.writer is not None and (self.reader.at_eof() or self.writer.is_closing()):
                self.leave()  # closed between two requests, as a server may
            if self.writer is None:
                await self.connect()
            try:
                return await self.exchange(path)
            except BaseException:
                self.leave()
                raise

    async def connect(self):
        local = (self.source, 0)
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost" if self.tls else None, local_addr=local
        )

    async def exchange(self, path):
        close = "Connection: close\r\n" if self.fresh else ""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        await self.reader.readexactly(int(length[1]) if length else 0)
        if self.fresh or re.search(rb"(?i)\r\nconnection: *close", head):
            self.leave()
        reason = re.search(rb'(?i)\r\nproxy-status: [^\r]*details="([a-z_]+)"', head)
        status = head[9:12].decode()
        return "ok" if status == "200" else f"{status} {reason[1].decode()}" if reason else status

    def leave(self):
        if self.writer is not None:
            self.writer.transport.abort()
            self.reader = self.writer = None


class OverH2:
    """One connection, requests beside one another; a new one when it ends."""

    def __init__(self, name, port, tls=None, source="127.0.0.1"):
        self.name, self.port, self.tls, self.source = name, port, tls, source
        self.turn = asyncio.Lock()
        self.writer = self.task = None
        self.next, self.open = 1, {}

    async def ask(self, path):
        async with self.turn:
            if self.writer is None:
                await self.connect()
            stream, self.next = self.next, self.next + 2
            answers = self.open
            answer = answers[stream] = asyncio.get_running_loop().create_future()
            scheme = b"https" if self.tls else b"http"
            self.writer.write(frames.headers(stream, frames.request(b"GET", path.encode(), scheme=scheme)))
        try:
            return await answer
        finally:
            answers.pop(stream, None)

    async def connect(self):
        reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost" if self.tls else None, local_addr=(self.source, 0)
        )
        self.next = 1
        self.writer.write(frames.PREFACE + frames.settings((frames.HEADER_TABLE_SIZE, 0)))
        self.task = asyncio.create_task(self.read(reader, self.writer, self.open))

    async def read(self, reader, writer, answers):
        statuses, incoming, ended = {}, frames.Reader(), "connection lost"
        try:
            while data := await reader.read(1 << 16):
                for kind, flags, stream, payload in incoming.feed(data):
                    if kind == frames.SETTINGS and not flags & frames.ACK:
                        writer.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
                    elif kind == frames.PING and not flags & frames.ACK:
                        writer.write(frames.frame(frames.PING, frames.ACK, 0, payload))
                    elif kind == frames.GOAWAY:
                        ended = "GOAWAY " + frames.error_name(int.from_bytes(payload[4:8], "big"))
                        if self.writer is writer:
                            self.writer = None  # what is open may end, what comes goes elsewhere
                            self.open = {}
                    elif kind == frames.HEADERS:
                        statuses[stream] = frames.status_of(payload)
                    elif kind == frames.RST_STREAM:
                        settle(answers, stream, "RST_STREAM " + frames.error_name(int.from_bytes(payload, "big")))
                    if kind == frames.DATA and payload:
                        writer.write(frames.window_update(0, len(payload)))
                    if kind in (frames.HEADERS, frames.DATA) and flags & frames.END_STREAM:
                        status = statuses.pop(stream, "?")
                        settle(answers, stream, "ok" if status == "200" else status)
        except (OSError, ssl.SSLError):
            pass
        if self.writer is writer:
            self.writer = None
            self.open = {}
        for stream in list(answers):
            settle(answers, stream, ended)
        writer.transport.abort()

    def leave(self):
        if self.writer is not None:
            self.writer.transport.abort()
        if self.task is not None:
            self.task.cancel()


def settle(answers, stream, kind):
    answer = answers.get(stream)
    if answer is not None and not answer.done():
        answer.set_result(kind)


async def steady(client, path, rate, begin, seconds, answers):
    """One request every 1/rate seconds."""
    asks = []
    for number in range(int(rate * seconds)):
        due = begin + number / rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        asks.append(asyncio.create_task(one(client, path, due, answers)))
    await asyncio.gather(*asks)
    client.leave()


async def one(client, path, due, answers):
    try:
        kind = await asyncio.wait_for(client.ask(path), PATIENCE)
    except TimeoutError:
        kind = f"no answer in {PATIENCE} s"
    except asyncio.IncompleteReadError:
        kind = "connection closed"
    except ConnectionRefusedError:
        kind = "connect refused"
    except (OSError, ssl.SSLError) as error:
        kind = type(error).__name__
    answers.append(Answer(client.name, due, time.monotonic() - due, kind))


def trusting(protocol):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


async def all_kinds(plain, tls, rate, seconds):
    """A `rate` altogether: most of it to the app, over what browsers and proxies speak."""
    answers, begin = [], time.monotonic() + 0.1
    each = rate / 5
    clients = [
        (OverH1("h1", plain), FAST, each),
        (OverH1("h1 TLS", tls, trusting("http/1.1")), FAST, each),
        (OverH2("h2 TLS", tls, trusting("h2")), FAST, 2 * each),
        (OverH1("h1 new", plain, fresh=True), FAST, each / 2),
        (OverH1("h1 new, no worker", plain, fresh=True), PLAIN, each / 2),
    ]
    # A little apart, so that they do not meet at the worker by the clock.
    await asyncio.gather(
        *(
            steady(client, path, each, begin + turn / rate / 2, seconds, answers)
            for turn, (client, path, each) in enumerate(clients)
        )
    )
    return answers


class Honest:
    """The client in its process; `answers()` waits for its end."""

    def __init__(self, gateway, rate, seconds):
        self.ours, theirs = multiprocessing.Pipe()
        self.within = seconds + 3 * PATIENCE
        self.process = multiprocessing.Process(
            target=self.run, args=(theirs, gateway.plain, gateway.tls, rate, seconds), daemon=True
        )
        self.process.start()
        theirs.close()

    @staticmethod
    def run(pipe, *arguments):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        pipe.send(asyncio.run(all_kinds(*arguments)))

    def answers(self):
        if not self.ours.poll(self.within):
            self.process.kill()
            raise RuntimeError("the honest client did not end")
        answers = self.ours.recv()
        self.process.join()
        return answers


@dataclass
class Figures:
    """What an honest client has seen; times in milliseconds."""

    asked: int
    answered: int
    p50: float
    p99: float
    longest: float
    others: dict

    @classmethod
    def of(cls, answers):
        times = [answer.seconds * 1000 for answer in answers if answer.kind == "ok"] or [float("nan")]
        others = {}
        for answer in answers:
            if answer.kind != "ok":
                name = f"{answer.over}: {answer.kind}"
                others[name] = others.get(name, 0) + 1
        answered = sum(answer.kind == "ok" for answer in answers)
        return cls(len(answers), answered, percentile(times, 50), percentile(times, 99), max(times), others)
