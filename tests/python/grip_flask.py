"""A Flask app that holds its clients by gripcontrol, unmodified: instructions as JSON, and as fields."""

import os

from flask import Flask, Response, request
from gripcontrol import (
    Channel,
    GripPubControl,
    HttpResponseFormat,
    HttpStreamFormat,
    create_grip_channel_header,
    create_hold_response,
    create_hold_stream,
    parse_grip_uri,
    validate_sig,
)
from gripcontrol import Response as Held
from pubcontrol import Item

application = Flask(__name__)
grip = parse_grip_uri(os.environ["GRIP_URL"])
publisher = GripPubControl(grip)


@application.get("/poll")
def poll():
    if not validate_sig(request.headers["Grip-Sig"], grip["key"]):
        return "not signed", 403
    held = Held(code=200, headers={"X-Held": "yes"}, body="nothing\n")
    return Response(create_hold_response("flask", held, timeout=5), content_type="application/grip-instruct")


@application.get("/stream")
def stream():
    held = Held(headers={"Content-Type": "text/plain"}, body="[open]\n")
    return Response(create_hold_stream("flask", held), content_type="application/grip-instruct")


@application.get("/fields")
def fields():
    headers = {"Grip-Hold": "stream", "Grip-Channel": create_grip_channel_header(Channel("flask"))}
    return Response("[open]\n", headers=headers, content_type="text/plain")


@application.get("/say")
def say():
    text = request.args["text"]
    publisher.publish("flask", Item([HttpResponseFormat(body=text), HttpStreamFormat(text)]), blocking=True)
    return "said"
