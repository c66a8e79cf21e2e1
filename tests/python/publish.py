"""Publishes as pubcontrol does, in whichever way of proving who it is: URI WAY SECRET CHANNEL TEXT."""

import base64
import sys
import time

from gripcontrol import GripPubControl, HttpStreamFormat, parse_grip_uri
from pubcontrol import Item, PubControlClient

uri, way, secret, channel, text = sys.argv[1:]

if way == "grip-url":
    publisher = GripPubControl(parse_grip_uri(f"{uri}/?key={secret}&iss=pushpin"))
elif way == "grip-url-base64":
    key = base64.b64encode(secret.encode()).decode()
    publisher = GripPubControl(parse_grip_uri(f"{uri}/?iss=pushpin&key=base64:{key}"))
elif way == "grip-url-key":
    publisher = GripPubControl(parse_grip_uri(f"{uri}/?key={secret}"))
else:
    publisher = PubControlClient(uri)
    if way == "basic":
        publisher.set_auth_basic("anybody", secret)
    elif way == "bearer":
        publisher.set_auth_bearer(secret)
    elif way == "jwt":
        publisher.set_auth_jwt({"iss": "somebody"}, secret)
    elif way == "expired":
        publisher.set_auth_jwt({"iss": "somebody", "exp": int(time.time()) - 3600}, secret)
    elif way != "nothing":
        sys.exit(f"no such way: {way}")

try:
    publisher.publish(channel, Item(HttpStreamFormat(text)), blocking=True)
except ValueError as error:
    sys.exit(str(error))
