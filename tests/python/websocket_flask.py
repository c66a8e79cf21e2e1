"""A Flask app on sync workers that speaks WebSocket through the edge, by gripcontrol alone.

What it has got is in the file JOURNAL: one line for each event, `connection event content`, in the order of its own running.
"""

import os
import time

from flask import Flask, Response, request
from gripcontrol import (
    WebSocketContext,
    WebSocketEvent,
    decode_websocket_events,
    encode_websocket_events,
    websocket_control_message,
)

application = Flask(__name__)
TYPE = "application/websocket-events"


def note(events):
    connection = request.headers["Connection-Id"]
    lines = "".join(f"{connection} {event.type} {(event.content or b'').hex()}\n" for event in events)
    with open(os.environ["JOURNAL"], "a", encoding="ascii") as journal:
        journal.write(lines)


def received():
    events = decode_websocket_events(request.get_data())
    note(events)
    return events


def answer(events, **fields):
    headers = {name.replace("_", "-"): str(value) for name, value in fields.items()}
    return Response(encode_websocket_events(events), headers=headers, content_type=TYPE)


@application.post("/echo")
def echo():
    """Everything comes back, and a close as it came."""
    return answer([event for event in decode_websocket_events(request.get_data()) if event.type != "DISCONNECT"])


@application.post("/numbers")
def numbers():
    """The same with a journal."""
    return answer([event for event in received() if event.type != "DISCONNECT"])


@application.post("/context")
def context():
    """A WebSocketContext of the library: accepts, echoes, and closes as it is closed."""
    events = received()
    ws = WebSocketContext(request.headers["Connection-Id"], {}, events)
    if ws.is_opening():
        ws.accept()
    while ws.can_recv():
        try:
            message = ws.recv()
        except IOError:
            break
        if message is None:
            ws.close(ws.close_code)
            break
        ws.send(message)
    out = [WebSocketEvent("OPEN")] if ws.accepted else []
    out += ws.out_events
    if ws.closed:
        out.append(WebSocketEvent("CLOSE", ws.out_close_code.to_bytes(2, "big")))
    return answer(out, Sec_WebSocket_Extensions="grip") if ws.accepted else answer(out)


@application.post("/room/<name>")
def room(name):
    """Puts its client on a channel, and does what it is told."""
    out = []
    for event in received():
        word = (event.content or b"").decode("utf-8", "replace")
        if event.type == "OPEN":
            control = websocket_control_message("subscribe", {"channel": name})
            out += [WebSocketEvent("OPEN"), WebSocketEvent("TEXT", "c:" + control), WebSocketEvent("TEXT", "m:welcome")]
        elif event.type == "TEXT" and word.startswith("control "):
            out.append(WebSocketEvent("TEXT", "c:" + word[8:]))
        elif event.type == "TEXT":
            out.append(WebSocketEvent("TEXT", "m:" + word))
        elif event.type == "CLOSE":
            out.append(WebSocketEvent("CLOSE", event.content))
    return answer(out, Sec_WebSocket_Extensions="grip")


@application.post("/fields")
def fields():
    """Says what it was asked with, and sets a cookie, a protocol and metadata."""
    events = received()
    names = sorted(name.lower() for name in request.headers.keys())
    told = "\n".join(f"{name}: {request.headers[name]}" for name in names)
    if events and events[0].type == "OPEN":
        response = answer([events[0], WebSocketEvent("TEXT", told)], Sec_WebSocket_Protocol="v2", Set_Meta_User="bob")
        response.set_cookie("seen", "1")
        return response
    return answer([WebSocketEvent("TEXT", told)], Set_Meta_User="" if events and events[0].content == b"forget" else "bob")


@application.post("/odd/<how>")
def odd(how):
    """Opens, and answers the first message as no app should."""
    events = received()
    if events and events[0].type == "OPEN":
        return answer([events[0]])
    if not events or events[0].type != "TEXT":
        return answer([])
    if how == "error":
        return Response("Internal Server Error", status=500)
    if how == "html":
        return Response("<html>", content_type="text/html")
    if how == "garbage":
        return Response("TEXT 5\r\nhi", content_type=TYPE)
    if how == "large":
        return answer([WebSocketEvent("TEXT", b"x" * 1_000_001)])
    if how == "accepts":
        return answer([], Content_Bytes_Accepted=1_000)
    if how == "late":
        time.sleep(float(os.environ.get("LATE", "60")))
    return answer([])


@application.post("/part")
def part():
    """Takes whole words alone, which end with a stop, and echoes them."""
    events = received()
    content = b"".join(event.content or b"" for event in events if event.type == "TEXT")
    words, stop, _ = content.rpartition(b".")
    taken = len(words + stop)
    out = [event for event in events if event.type in ("OPEN", "CLOSE")]
    if taken:
        replayed = request.headers.get("Content-Bytes-Replayed", "0")
        out.append(WebSocketEvent("TEXT", replayed.encode() + b" " + words + stop))
    if any(event.type in ("CLOSE", "DISCONNECT") for event in events):
        return answer(out)
    return answer(out, Content_Bytes_Accepted=taken)


@application.post("/slow")
def slow():
    """Takes its time before it lets somebody in, or does not."""
    events = received()
    if not events or events[0].type != "OPEN":
        return answer([])
    time.sleep(float(os.environ["LATE"]))
    return Response("no", status=403) if "no" in request.args else answer([events[0]])


@application.post("/meta")
def meta():
    """Notes with each event what it has set before."""
    events = received()
    known = request.headers.get("Meta-State", "none")
    note([WebSocketEvent("META", known.encode())])
    if any(event.type == "TEXT" for event in events):
        time.sleep(float(os.environ["LATE"]))
        return answer([], Set_Meta_State="said")
    return answer([event for event in events if event.type == "OPEN"], Set_Meta_State="open")


@application.post("/asked")
def asked():
    """Wants to be asked, and says so to its client each time."""
    events = received()
    if events and events[0].type == "OPEN":
        return answer([events[0]], Keep_Alive_Interval=1)
    return answer([event for event in events if event.type == "CLOSE"] or [WebSocketEvent("TEXT", "asked")])


@application.post("/refused/<int:status>")
def refused(status):
    response = Response("not you\n", status=status, content_type="text/plain")
    response.headers["X-Why"] = "because"
    return response


@application.get("/quick")
def quick():
    return "quick"
