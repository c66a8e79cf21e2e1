"""
A chat over WebSocket, in a plain Flask app on gunicorn's sync workers.

No worker holds a connection. Hostler does, and tells this app what comes over it in short POSTs to the same address: a body
of events (`OPEN`, `TEXT`, `CLOSE`, `DISCONNECT`), answered with events. What one says reaches the others by way of Hostler's
publish address: the app says it once, however many listen.
"""

import os

from flask import Flask, Response, render_template, request
from gripcontrol import (
    GripPubControl,
    WebSocketEvent,
    WebSocketMessageFormat,
    decode_websocket_events,
    encode_websocket_events,
    parse_grip_uri,
    validate_sig,
    websocket_control_message,
)
from pubcontrol import Item

# Where Hostler takes what is published, and the key that both have: see hostler.yaml.
GRIP_URL = os.environ.get("GRIP_URL", "http://127.0.0.1:5561/?iss=hostler&key=only-for-trying-it-on-ones-own-machine")
EVENTS = "application/websocket-events"
LONGEST = 500  # characters of a message

app = Flask(__name__)
grip = parse_grip_uri(GRIP_URL)
publisher = GripPubControl(grip)


@app.get("/")
def index():
    return render_template("chat.html")


@app.post("/chat")
def chat():
    # Hostler alone may ask here: whoever else sends such a body has no signature.
    if not validate_sig(request.headers.get("Grip-Sig", ""), grip["key"]):
        return Response("This address takes WebSocket connections, by way of Hostler.\n", 400)
    events, answers, headers = decode_websocket_events(request.get_data()), [], {}
    for event in events:
        if event.type == "OPEN":
            answers.append(WebSocketEvent("OPEN"))
            answers.append(WebSocketEvent("TEXT", "c:" + websocket_control_message("subscribe", {"channel": "chat"})))
            headers["Sec-WebSocket-Extensions"] = 'grip; message-prefix=""'
        elif event.type == "TEXT":
            say((event.content or b"").decode()[:LONGEST])
        elif event.type == "CLOSE":
            answers.append(event)
    return Response(encode_websocket_events(answers), content_type=EVENTS, headers=headers)


def say(text):
    """To everybody, the one who has said it included."""
    publisher.publish("chat", Item(WebSocketMessageFormat(text)), blocking=True)
