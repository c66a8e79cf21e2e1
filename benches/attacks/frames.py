"""HTTP/2 as bytes (RFC 9113, RFC 7541): as much of it as an attacker writes and an honest client reads."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4

HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 0x1, 0x4
LARGEST_WINDOW = (1 << 31) - 1

ERRORS = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR REFUSED_STREAM "
    "CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
).split()
# RFC 7541, appendix A: the statuses that have an index of their own.
STATUSES = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}
STATUS_NAME = 8


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst_stream(stream, code=8):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def priority(stream, depends_on):
    return frame(PRIORITY, 0, stream, struct.pack(">IB", depends_on, 15))


def headers(stream, block, end_stream=True, end_headers=True):
    return frame(HEADERS, END_STREAM * end_stream | END_HEADERS * end_headers, stream, block)


def integer(value, prefix, first=0):
    """RFC 7541, 5.1."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((first | value,))
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def string(text):
    return integer(len(text), 7) + text


def literal(name, value):
    """A field that enters no table; the name is an index of the static table, or bytes."""
    return (integer(name, 4) if isinstance(name, int) else b"\x00" + string(name)) + string(value)


def indexed_literal(name, value):
    """A field that enters the dynamic table, as its newest entry (index 62)."""
    return b"\x40" + string(name) + string(value)


def request(method, path, *fields, authority=b"localhost", scheme=b"http"):
    """A header block that refers to no dynamic table, so that it may be sent any number of times."""
    block = {b"GET": b"\x82", b"POST": b"\x83"}.get(method) or literal(2, method)
    block += b"\x87" if scheme == b"https" else b"\x86"
    block += literal(4, path) + literal(1, authority)
    return block + b"".join(literal(name, value) for name, value in fields)


class Reader:
    """Bytes in, whole frames out: (kind, flags, stream, payload)."""

    def __init__(self):
        self.bytes = bytearray()

    def feed(self, data):
        self.bytes += data
        at = 0
        while len(self.bytes) - at >= 9:
            length = int.from_bytes(self.bytes[at : at + 3], "big")
            if len(self.bytes) - at < 9 + length:
                break
            kind, flags = self.bytes[at + 3], self.bytes[at + 4]
            stream = int.from_bytes(self.bytes[at + 5 : at + 9], "big") & LARGEST_WINDOW
            yield kind, flags, stream, bytes(self.bytes[at + 9 : at + 9 + length])
            at += 9 + length
        del self.bytes[:at]


def error_name(code):
    return ERRORS[code] if code < len(ERRORS) else f"error {code:#x}"


def status_of(block):
    """The status of a response, which is its first field; a client that allows no dynamic table gets it so."""
    at = 0
    while at < len(block) and block[at] & 0xE0 == 0x20:  # a change of the table's size
        at += 1 if block[at] & 0x1F < 0x1F else 2 + next(n for n in range(9) if block[at + 1 + n] < 128)
    if at >= len(block):
        return "?"
    if block[at] & 0x80:
        return STATUSES.get(block[at] & 0x7F, "?")
    name = block[at] & (0x3F if block[at] & 0x40 else 0x0F)
    if name != STATUS_NAME or at + 2 > len(block):
        return "?"
    text = block[at + 2 : at + 2 + (block[at + 1] & 0x7F)]
    return huffman_digits(text) if block[at + 1] & 0x80 else text.decode("ascii", "replace")


def huffman_digits(text):
    """RFC 7541, appendix B: 0, 1 and 2 have five bits, the other digits six."""
    bits, out = "".join(f"{byte:08b}" for byte in text), ""
    while len(out) < 3:
        if bits[:5] in ("00000", "00001", "00010"):
            out, bits = out + str(int(bits[:5], 2)), bits[5:]
        elif 0b011001 <= int(bits[:6] or "0", 2) <= 0b011111 and len(bits) >= 6:
            out, bits = out + str(int(bits[:6], 2) - 0b011001 + 3), bits[6:]
        else:
            return "?"
    return out
