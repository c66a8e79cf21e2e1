"""What is measured: each scenario with its load."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Scenario:
    """One kind of measurement. `kind` is load, threads (the load twice) or idle (memory, no load)."""

    key: str
    title: str
    short: str
    kind: str = "load"
    tool: str | None = "wrk"
    scheme: str = "http"
    path: str = "/"
    connections: int = 64
    streams: int = 1
    method: str = "GET"
    answer: int = KIB
    opens: str | None = None  # how each request opens its connection, for bench-load
    app: bool = False  # gunicorn answers, not the origin
    file: bool = False  # the proxy answers with a file
    cached: bool = False  # the proxy answers from its cache
    encoding: str | None = None  # the proxy is to compress the origin's answer so
    websocket: bool = False  # what is counted are messages of WebSockets that are open

    @property
    def in_flight(self):
        """The most requests under way at once."""
        return self.connections * self.streams

    @property
    def moved(self):
        """Bytes of bodies that a request moves through the proxy."""
        return max(self.answer, 10 * MIB if self.method == "POST" else 0)

    @property
    def is_alone(self):
        """Nobody behind the proxy is asked."""
        return self.file or self.cached

    def can_do(self, kind):
        """HAProxy serves no files. Varnish is a cache and nothing else, and has no TLS."""
        if kind == "varnish":
            return self.cached and self.scheme == "http"
        return not (self.file and kind == "haproxy")


def scenario(key, title, short, **more):
    return Scenario(key, title, short, **more)


def alone(key, what, folder, size, connections=64, streams=1, **more):
    """The proxy has so many bytes itself, in `folder`."""
    amount = f"{size // KIB} KiB" if size < MIB else f"{size // MIB} MiB"
    over_http2 = "scheme" in more
    how = "HTTP/2 over TLS 1.3" if over_http2 else "HTTP/1.1 keep-alive"
    load = f"{connections} connections" + (f" x {streams} streams" if over_http2 else "")
    short = f"{what} of {amount}, {'h2 TLS 1.3' if over_http2 else 'h1'}"
    sizes = {"connections": connections, "streams": streams, "answer": size}
    return scenario(key, f"a {what} of {amount}, {how}, {load}", short, path=f"/{folder}/{size}", **sizes, **more)


def file(key, size, **more):
    return alone(key, "file", "files", size, file=True, **more)


def hit(key, size, **more):
    return alone(key, "cache hit", "cached", size, cached=True, **more)


OVER_HTTP2 = {"tool": "h2load", "scheme": "https", "connections": 10, "streams": 10}

SCENARIOS = [
    scenario("a", "HTTP/1.1 keep-alive, 64 connections, origin over TCP, 1 KiB", "h1 keep-alive → TCP"),
    scenario("b", "as a, origin over a unix socket", "h1 keep-alive → unix", path="/unix/"),
    scenario("c", "as a, over TLS 1.3", "h1 TLS 1.3 → TCP", scheme="https"),
    scenario(
        "d",
        "HTTP/2 over TLS 1.3, 10 connections x 10 streams, origin over TCP, 1 KiB",
        "h2 TLS 1.3, 10 × 10 → TCP",
        tool="h2load",
        scheme="https",
        connections=10,
        streams=10,
    ),
    scenario(
        "e",
        "a full TLS 1.3 handshake (P-256, X25519) for each request, 16 clients",
        "full handshake, one request",
        tool="bench-load",
        scheme="https",
        connections=16,
        opens="full",
    ),
    scenario(
        "f",
        "a resumed TLS 1.3 handshake for each request, 16 clients",
        "resumed handshake, one request",
        tool="bench-load",
        scheme="https",
        connections=16,
        opens="resumed",
    ),
    scenario(
        "g",
        "a new plain connection for each request, 16 clients",
        "new connection, one request",
        tool="bench-load",
        connections=16,
        opens="plain",
    ),
    scenario(
        "h",
        "gunicorn with 4 sync workers on a unix socket, no keep-alive to it, 16 client connections, 1 KiB",
        "gunicorn, sync workers",
        path="/wsgi/",
        connections=16,
        app=True,
    ),
    scenario("i", "answers of 10 MiB, 4 connections", "10 MiB answer", path="/large/", connections=4, answer=10 * MIB),
    scenario("j", "uploads of 10 MiB, buffered, 4 connections", "10 MiB upload", path="/upload/", connections=4, method="POST"),
    scenario("k", "memory per idle keep-alive connection", "idle connection", kind="idle", tool=None),
    scenario("l", "as a: one thread pinned, then two threads with nothing pinned", "2 threads over 1", kind="threads"),
    file("m", 1 * KIB),
    file("n", 1 * KIB, **OVER_HTTP2),
    file("o", 100 * KIB),
    file("p", 100 * KIB, **OVER_HTTP2),
    file("q", 10 * MIB, connections=4),
    file("r", 10 * MIB, **OVER_HTTP2 | {"connections": 4, "streams": 1}),
    scenario(
        "s",
        "gzip of 100 KiB of JSON from the origin, HTTP/1.1 keep-alive, 64 connections",
        "gzip of 100 KiB JSON",
        path="/json/",
        answer=100 * KIB,
        encoding="gzip",
    ),
    scenario(
        "t",
        "an echoed message of 64 bytes, WebSocket over HTTP/1.1, 64 of them",
        "WebSocket message, h1",
        tool="bench-load",
        path="/ws/",
        answer=64,
        opens="websocket",
        websocket=True,
    ),
    scenario(
        "u",
        "as t, over TLS 1.3",
        "WebSocket message, TLS 1.3",
        tool="bench-load",
        scheme="https",
        path="/ws/",
        answer=64,
        opens="websocket-tls",
        websocket=True,
    ),
    hit("v", 1 * KIB),
    hit("w", 1 * KIB, **OVER_HTTP2),
    hit("x", 100 * KIB),
    hit("y", 100 * KIB, **OVER_HTTP2),
]
LETTERS = "".join(each.key for each in SCENARIOS)


def chosen(letters):
    return [each for each in SCENARIOS if each.key in letters]


def able(peers, scenarios):
    """The peers that can do any of these."""
    return [peer for peer in peers if any(each.can_do(peer.kind) for each in scenarios)]
