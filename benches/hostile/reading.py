"""What stands on the wire: which faults a request has that reached the worker, and what a strict client makes of an answer."""

import re

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
HOP_BY_HOP = {"te", "trailer", "upgrade", "http2-settings", "keep-alive", "proxy-connection", "proxy-authorization"}
FORGED = {"forwarded", "remote-user", "x-remote-user", "script-name", "path-info", "proxy", "x-accel-redirect", "x-sendfile-type"}
FORGED |= {"x-forwarded-port", "x-forwarded-prefix", "grip-sig"}


class Incomplete(Exception):
    """The request has no end."""


def faults(data):
    """All that a worker could read otherwise than the proxy did, or take for the proxy's own word."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if b"\n\n" not in data:
            raise Incomplete
        return ["bare LF"]
    found = set()
    line, *fields = data[:end].split(b"\r\n")
    found |= of_line(line)
    seen = {}
    for text in fields:
        found |= of_field(text, seen)
    found |= of_framing(seen, data[end + 4 :])
    hosts = seen.get("host", [])
    if len(hosts) != 1:
        found.add("two Hosts" if hosts else "no Host")
    elif not re.fullmatch(rb"(?i)shop\.example\.?(:\d*)?", hosts[0]):
        found.add("another Host")
    return sorted(found)


def of_line(line):
    found = controls(line)
    words = line.split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0") or not TOKEN.fullmatch(words[0]):
        return found | {"request line"}
    target = words[1]
    if not target.startswith(b"/") and (words[0], target) != (b"OPTIONS", b"*"):
        found.add("absolute-form" if b"://" in target else "target")
    if any(byte > 0x7E for byte in target):
        found.add("not ASCII")
    if b"#" in target:
        found.add("fragment")
    path = target.partition(b"?")[0]
    if re.search(rb"%(?![0-9A-Fa-f]{2})", path):
        found.add("broken escape")
    decoded = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), path)
    if re.search(rb"(^|/)\.\.?(/|$)", decoded):
        found.add("dots")
    if b"\\" in decoded:
        found.add("backslash")
    if b"\0" in decoded:
        found.add("NUL")
    return found


def of_field(text, seen):
    found = controls(text)
    if text[:1] in (b" ", b"\t"):
        return found | {"fold"}
    name, colon, value = text.partition(b":")
    if not colon or not TOKEN.fullmatch(name):
        return found | {"field name"}
    key = name.decode().lower()
    value = value.strip(b" \t")
    seen.setdefault(key, []).append(value)
    if "_" in key:
        found.add("underscore")
    if key in HOP_BY_HOP or (key == "connection" and value.lower() not in (b"close", b"keep-alive", b"")):
        found.add("hop-by-hop")
    is_own = (key, value) in [("x-forwarded-for", b"127.0.0.1"), ("x-real-ip", b"127.0.0.1"), ("x-forwarded-proto", b"http")]
    if (key in FORGED and value != b"") or (key in ("x-forwarded-for", "x-real-ip", "x-forwarded-proto") and not is_own):
        if not (key == "x-forwarded-port" and value != b"1"):
            found.add("forged")
    if key == "x-forwarded-host" and value == b"evil.example":
        found.add("forged")
    return found


def controls(line):
    found = set()
    if b"\n" in line:
        found.add("bare LF")
    if b"\r" in line:
        found.add("bare CR")
    if any((byte < 0x20 and byte not in b"\t\r\n") or byte == 0x7F for byte in line):
        found.add("control byte")
    return found


def of_framing(seen, body):
    lengths, codings = seen.get("content-length", []), seen.get("transfer-encoding", [])
    if lengths and codings:
        return {"length and chunked"}
    if len(lengths) > 1:
        return {"two lengths"}
    if codings:
        if [coding.lower() for coding in codings] != [b"chunked"]:
            return {"Transfer-Encoding"}
        return of_chunks(body)
    if lengths and not re.fullmatch(rb"\d{1,19}", lengths[0]):
        return {"length"}
    length = int(lengths[0]) if lengths else 0
    if len(body) < length:
        raise Incomplete
    return {"bytes behind it"} if len(body) > length else set()


def of_chunks(body):
    while True:
        line, crlf, body = body.partition(b"\r\n")
        if not crlf:
            raise Incomplete
        # A worker may read extensions in its own way; a proxy has no reason to send them on.
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", line):
            return {"chunk"}
        size = int(line, 16)
        if size == 0:
            break
        if len(body) < size + 2:
            raise Incomplete
        if body[size : size + 2] != b"\r\n":
            return {"chunk"}
        body = body[size + 2 :]
    while True:
        line, crlf, body = body.partition(b"\r\n")
        if not crlf:
            raise Incomplete
        if not line:
            return {"bytes behind it"} if body else set()
        if re.match(rb"(?i)(content-length|transfer-encoding|host|x-forwarded-for) *:", line):
            return {"forbidden trailer"}
        if not re.match(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:", line):
            return {"trailer"}


def sent_on(data):
    """Target and body of a request without faults."""
    head, _, body = data.partition(b"\r\n\r\n")
    if re.search(rb"(?im)^transfer-encoding:", head):
        out = b""
        while not body.startswith(b"0"):
            line, _, body = body.partition(b"\r\n")
            size = int(line, 16)
            out, body = out + body[:size], body[size + 2 :]
        body = out
    return head.split(b" ")[1], body


def answers(data, method, ended):
    """The answers in what a client received: status, body, and whether the client takes it for whole."""
    found = []
    while data:
        head, empty, rest = data.partition(b"\r\n\r\n")
        match = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if not empty or not match:
            found.append((0, data, False))
            return found
        status = int(match[1])
        if 100 <= status < 200:
            data = rest
            continue
        fields = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            fields.setdefault(name.lower(), []).append(value.strip())
        if method == "HEAD" or status in (204, 304):
            found.append((status, b"", True))
            data = rest
        elif fields.get(b"transfer-encoding"):
            body, data, is_whole = chunks(rest)
            found.append((status, body, is_whole))
        elif fields.get(b"content-length"):
            length = int(fields[b"content-length"][0])
            found.append((status, rest[:length], len(rest) >= length))
            data = rest[length:]
        else:
            found.append((status, rest, ended == "closed"))
            data = b""
    return found


def chunks(data):
    body = b""
    while True:
        line, crlf, rest = data.partition(b"\r\n")
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            return body, b"", False
        if not crlf or len(rest) < size + 2:
            return body + rest[:size], b"", False
        if size == 0:
            end = rest.find(b"\r\n")
            while end > 0:
                rest = rest[end + 2 :]
                end = rest.find(b"\r\n")
            return body, rest[2:], end == 0
        body, data = body + rest[:size], rest[size + 2 :]
