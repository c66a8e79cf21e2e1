"""The app behind the gateway, for gunicorn: fast, and it counts who reached it."""

import os
import time
from pathlib import Path
from urllib.parse import parse_qs

FOLDER = Path(os.environ["ATTACKS_FOLDER"])
FAST = 0.002
MEBIBYTE = b"x" * (1 << 20)
COUNTS = {who: os.open(FOLDER / f"count-{who}", os.O_WRONLY | os.O_APPEND | os.O_CREAT) for who in ("honest", "attack")}


def application(environ, start_response):
    asked = parse_qs(environ["QUERY_STRING"])
    # One byte for each request, whichever process serves it: the size of the file is the count.
    os.write(COUNTS["honest" if asked.get("by") == ["honest"] else "attack"], b".")
    path = environ["PATH_INFO"]
    if path == "/large":
        size = int(asked.get("mib", ["10"])[0])
        return answer(start_response, size << 20, (MEBIBYTE for _ in range(size)))
    if path == "/take":
        while environ["wsgi.input"].read(1 << 16):
            pass
    elif path == "/work":
        time.sleep(int(asked["ms"][0]) / 1000)
    elif path == "/gate":
        # Busy for as long as somebody else wants it.
        while (FOLDER / "gate").exists():
            time.sleep(0.005)
    else:
        time.sleep(FAST)
    return answer(start_response, 3, [b"ok\n"])


def answer(start_response, length, body):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(length))])
    return body
