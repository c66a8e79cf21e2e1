"""The tables of tests/hostile, as the Rust tests read them."""

from dataclasses import dataclass, field
from pathlib import Path

TABLES = Path(__file__).resolve().parents[2] / "tests" / "hostile"
SIMPLE = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


@dataclass
class Request:
    name: str
    bytes: bytes
    # For each request that is sent on: what stands before the fields of the edge, and behind them.
    forwarded: list = field(default_factory=list)
    # "400 bad_host", where Hostler refuses one of them.
    refused: str = ""


@dataclass
class Response:
    name: str
    method: str
    bytes: bytes
    # stay, close or reset
    then: str
    # whole, failed or cut
    outcome: str
    status: int
    body: bytes


def requests():
    return [request(*parts) for parts in table("requests.txt", 5)]


def responses():
    """Those that a worker may say in HTTP."""
    return [response(*parts[:5]) for parts in table("responses.txt", 7) if "http" in parts[5].split(" ")]


def table(name, count):
    for line in (TABLES / name).read_text().splitlines():
        if line and not line.startswith("#"):
            parts = line.split(" | ")
            assert len(parts) == count, line
            yield parts


def request(name, text, does, _over2, _why):
    row = Request(name, unescape(text))
    if does.endswith("]"):
        does = does[: does.rindex(" [")]
    for deed in does.split(" then "):
        if deed.startswith("> "):
            row.forwarded.append(tuple(unescape(part) for part in deed[2:].split(r"\~")))
        else:
            row.refused = deed
    return row


def response(name, method, text, then, outcome):
    kind, status, body = (outcome + "  ").split(" ", 2)
    return Response(name, method, unescape(text), then, kind, int(status), unescape(body.strip(" ")))


def unescape(text):
    out, rest = until(text, None)
    assert not rest, text
    return out


def until(text, end):
    """The bytes up to the end, or to the brace that ends a repetition, and what is left."""
    out, at = bytearray(), 0
    while at < len(text):
        if text[at] == end:
            return bytes(out), text[at + 1 :]
        if text[at] != "\\":
            out += text[at].encode()
            at += 1
            continue
        kind = text[at + 1]
        if kind in SIMPLE:
            out += SIMPLE[kind]
            at += 2
        elif kind == "x":
            out.append(int(text[at + 2 : at + 4], 16))
            at += 4
        elif kind == "{":
            times, inner = text[at + 2 :].split(":", 1)
            piece, text = until(inner, "}")
            out += piece * int(times)
            at = 0
        else:
            raise ValueError(text)
    assert end is None, "a repetition without an end"
    return bytes(out), ""
