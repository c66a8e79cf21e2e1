"""An ASGI app without a framework that speaks WebSocket: what it hears it says, and what it was told goes to stderr."""

import json
import sys


async def application(scope, receive, send):
    if scope["type"] == "http":
        await page(send)
    elif scope["path"].startswith("/ws/refuse"):
        await refuse(receive, send)
    else:
        await echo(scope, receive, send)


async def page(send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>echo</title><p>page"})


async def refuse(receive, send):
    """With a page of its own, before the WebSocket is open."""
    await receive()
    await send({"type": "websocket.http.response.start", "status": 403, "headers": [(b"x-why", b"members")]})
    await send({"type": "websocket.http.response.body", "body": b"members only"})


async def echo(scope, receive, send):
    await receive()
    subprotocols = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": subprotocols[0] if subprotocols else None})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            print("disconnect", event.get("code"), file=sys.stderr, flush=True)
            return
        text = event.get("text")
        if text == "headers":
            fields = {name.decode(): value.decode() for name, value in scope["headers"]}
            await send({"type": "websocket.send", "text": json.dumps(fields)})
        elif text == "leave":
            await send({"type": "websocket.close", "code": 4001, "reason": "as you wish"})
        elif text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})
