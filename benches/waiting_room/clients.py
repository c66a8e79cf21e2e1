"""Clients of HTTP/1.1, thousands in one process: each with a connection of its own."""

import asyncio
import re
import time
from dataclasses import dataclass

READ_LIMIT = 1 << 20


@dataclass
class Outcome:
    """What became of one request. `kind` is `ok`, or in a word or two what went wrong."""

    method: str
    name: str
    kind: str
    seconds: float


class Client:
    """One connection, opened when it is needed."""

    def __init__(self, port, source=None, patience=120):
        self.port = port
        self.source = source
        self.patience = patience
        self.reader = self.writer = None

    async def ask(self, method, name, milliseconds, body=0):
        """`/work` with this id, and its outcome."""
        begun = time.monotonic()
        length = f"Content-Length: {body}\r\n" if method == "POST" else ""
        head = f"{method} /work?id={name}&ms={milliseconds} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"
        try:
            kind = await asyncio.wait_for(self.exchange(head.encode() + b"x" * body), self.patience)
        except TimeoutError:
            kind = "no answer"
        except (OSError, asyncio.IncompleteReadError):
            kind = "connection lost"
        if kind != "ok":
            self.leave()
        return Outcome(method, name, kind, time.monotonic() - begun)

    async def exchange(self, request):
        await self.send(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        await self.reader.readexactly(int(length[1]) if length else 0)
        if re.search(rb"(?i)\r\nconnection: close", head):
            self.leave()
        if status == 200:
            return "ok"
        reason = re.search(rb'(?i)\r\nproxy-status: [^\r]*details="([a-z_]+)"', head)
        return f"{status} {reason[1].decode()}" if reason else str(status)

    async def send(self, request):
        if self.writer is None:
            local = (self.source, 0) if self.source else None
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1", self.port, local_addr=local, limit=READ_LIMIT
            )
        self.writer.write(request)
        await self.writer.drain()

    def leave(self):
        """Closes at once, whatever is under way."""
        if self.writer is not None:
            self.writer.transport.abort()
            self.reader = self.writer = None


def percentile(values, percent):
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * percent // 100) - 1))]
