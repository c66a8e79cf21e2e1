"""The `websockets` library as a client: URL of an echo, the address where it is, and a file with the root to trust for wss://."""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1_000_000]


async def converse(url, compression, **options):
    options |= {"compression": compression, "subprotocols": ["v2", "v1"], "max_size": None}
    async with connect(url, **options) as socket:
        negotiated = [extension.name for extension in socket.protocol.extensions]
        assert negotiated == (["permessage-deflate"] if compression else []), negotiated
        assert socket.subprotocol == "v2", socket.subprotocol
        for size in SIZES:
            for message in ["ä" * size, os.urandom(size), b"\0" * size]:
                await socket.send(message)
                assert await socket.recv() == message, size
        # In fragments, which an extension may compress one by one.
        await socket.send(["one ", "two ", "three"])
        assert await socket.recv() == "one two three"
        await (await socket.ping())
        await socket.send("leave")
        try:
            await socket.recv()
            raise AssertionError("it did not leave")
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 4001 and closed.rcvd.reason == "as you wish", closed


async def main(url, address, root):
    host, port = address.split(":")
    options = {"host": host, "port": int(port)}
    if url.startswith("wss:"):
        options["ssl"] = ssl.create_default_context(cafile=root)
    for compression in ["deflate", None]:
        await converse(url, compression, **options)
    print("ok")


asyncio.run(main(*sys.argv[1:]))
