"""Attackers: many connections of one kind, in one process at the lowest priority, each with a script that it plays again and
again until the time is over.

The rate of new connections is bounded, so that what is measured is the attack and not how fast Python connects.
"""

import asyncio
import multiprocessing
import os
import re
import signal
import socket
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Callable

import frames
from honest import trusting


@dataclass(frozen=True)
class Attack:
    """`script(wire)` is one connection's life; it returns when it has nothing more to do, and is cancelled at the end."""

    name: str
    about: str
    script: Callable
    connections: int = 8
    per_second: float = 20
    protocol: str = "h2"
    tls: bool = False
    sources: int = 8
    receive_buffer: int = 0
    # What the gateway's file says of the spool, when an attack needs it.
    spool: str = ""


@dataclass
class Tally:
    """What became of the attackers."""

    made: int = 0
    refused: Counter = field(default_factory=Counter)
    ended: Counter = field(default_factory=Counter)
    answers: Counter = field(default_factory=Counter)
    most_open: int = 0
    sent: int = 0


class Ended(Exception):
    """The gateway has ended the connection; the text says how."""


class Wire:
    """One connection of an attacker. What the gateway says on it is noted whenever it is read."""

    def __init__(self, sock, tally, protocol, over):
        self.sock, self.tally, self.protocol, self.over = sock, tally, protocol, over
        self.loop = asyncio.get_running_loop()
        self.incoming = frames.Reader()
        self.last_word = None
        self.listener = None

    async def send(self, data):
        try:
            await self.write(data)
        except (OSError, ssl.SSLError) as error:
            await self.listen_to_the_end()
            raise self.end(error) from None
        self.tally.sent += len(data)
        # A write that does not block would never let anybody else run.
        await asyncio.sleep(0)

    async def hear(self, most=1 << 16):
        """What the gateway has sent next."""
        try:
            data = await self.read(most)
        except (OSError, ssl.SSLError) as error:
            raise self.end(error) from None
        if not data:
            raise self.end(None)
        self.note(data)
        return data

    async def play(self, chunks):
        for chunk in chunks:
            await self.send(chunk)

    async def hear_all(self):
        while True:
            await self.hear()

    async def beside(self, sending, reading=True):
        """Sends, and reads meanwhile or not; the end of either is the end."""
        if not reading:
            return await sending
        self.listener = asyncio.ensure_future(self.hear_all())
        sender = asyncio.ensure_future(sending)
        try:
            done, _ = await asyncio.wait((self.listener, sender), return_when=asyncio.FIRST_COMPLETED)
            # The listener knows more of how it ended.
            (self.listener if self.listener in done else sender).result()
        finally:
            for task in (self.listener, sender):
                task.cancel()
            await asyncio.gather(self.listener, sender, return_exceptions=True)

    def note(self, data):
        if self.protocol == "h2":
            self.note_frames(data)
        elif self.protocol == "h1":
            for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", data):
                self.tally.answers[status.decode()] += 1
                self.last_word = status.decode() if status[0:1] in b"45" else None

    def note_frames(self, data):
        for kind, _, _, payload in self.incoming.feed(data):
            if kind == frames.GOAWAY:
                self.last_word = "GOAWAY " + frames.error_name(int.from_bytes(payload[4:8], "big"))
            elif kind == frames.RST_STREAM:
                self.tally.answers["RST_STREAM " + frames.error_name(int.from_bytes(payload, "big"))] += 1
            elif kind == frames.HEADERS:
                self.tally.answers[frames.status_of(payload)] += 1

    async def listen_to_the_end(self):
        """After a write has failed: what was said before may still be there to read."""
        if self.listener is not None:
            await asyncio.wait((self.listener,), timeout=1)
            return
        try:
            async with asyncio.timeout(1):
                while data := await self.read():
                    self.note(data)
        except (OSError, ssl.SSLError, TimeoutError):
            pass

    def end(self, error):
        how = "closed" if error is None else "reset" if isinstance(error, ConnectionError) else type(error).__name__
        return Ended(f"{self.last_word}, {how}" if self.last_word else how)


class PlainWire(Wire):
    async def write(self, data):
        await self.loop.sock_sendall(self.sock, data)

    async def read(self, most=1 << 16):
        return await self.loop.sock_recv(self.sock, most)

    def close(self):
        self.sock.close()


class TlsWire(Wire):
    async def write(self, data):
        self.over[1].write(data)
        await self.over[1].drain()

    async def read(self, most=1 << 16):
        return await self.over[0].read(most)

    def close(self):
        self.over[1].transport.abort()


class Storm:
    """All attackers of one attack, until `until` on the clock of time.monotonic()."""

    def __init__(self, attack, port, until):
        self.attack, self.port, self.until = attack, port, until
        self.tally = Tally()
        self.due = time.monotonic()
        self.open = 0

    async def run(self):
        await asyncio.gather(*(self.attacker(number) for number in range(self.attack.connections)))
        return self.tally

    async def attacker(self, number):
        source = f"127.0.6.{1 + number % self.attack.sources}"
        while await self.turn():
            wire = await self.connect(source)
            if wire is None:
                continue
            self.open += 1
            self.tally.most_open = max(self.tally.most_open, self.open)
            try:
                async with asyncio.timeout(max(0, self.until - time.monotonic())):
                    await self.attack.script(wire)
                how = "done" + (f" ({wire.last_word})" if wire.last_word else "")
            except Ended as ended:
                how = str(ended)
            except TimeoutError:
                how = "open at the end" + (f" ({wire.last_word})" if wire.last_word else "")
            self.tally.ended[how] += 1
            self.open -= 1
            wire.close()

    async def turn(self):
        """Waits for the turn to connect; says whether there is one before the end."""
        self.due = max(self.due + 1 / self.attack.per_second, time.monotonic() - 1)
        due = self.due
        if max(due, time.monotonic()) >= self.until:
            await asyncio.sleep(max(0, self.until - time.monotonic()))
            return False
        await asyncio.sleep(max(0, due - time.monotonic()))
        return True

    async def connect(self, source):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.attack.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.attack.receive_buffer)
        loop = asyncio.get_running_loop()
        try:
            sock.bind((source, 0))
            async with asyncio.timeout(10):
                await loop.sock_connect(sock, ("127.0.0.1", self.port))
                if not self.attack.tls:
                    self.tally.made += 1
                    return PlainWire(sock, self.tally, self.attack.protocol, None)
                over = await asyncio.open_connection(sock=sock, ssl=trusting("h2" if self.attack.protocol == "h2" else "http/1.1"), server_hostname="localhost")
                self.tally.made += 1
                return TlsWire(sock, self.tally, self.attack.protocol, over)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self.tally.refused[type(error).__name__] += 1
            sock.close()
            return None


class Attackers:
    """An attack under way in a process of its own; `tally()` waits for its end."""

    def __init__(self, attack, gateway, seconds):
        self.within = seconds + 30
        port = gateway.tls if attack.tls or attack.protocol == "tls" else gateway.plain
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self.run, args=(theirs, attack, port, seconds), daemon=True)
        self.process.start()
        theirs.close()

    @staticmethod
    def run(pipe, attack, port, seconds):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.nice(19)
        pipe.send(asyncio.run(Storm(attack, port, time.monotonic() + seconds).run()))

    def tally(self):
        if not self.ours.poll(self.within):
            self.process.kill()
            raise RuntimeError("the attackers did not end")
        tally = self.ours.recv()
        self.process.join()
        return tally
