"""The app of scenario h: 1 KiB for everybody. Each worker keeps a count of its answers in a file of its own."""

import mmap
import os

BODY = b"x" * 1024


def new_counter():
    path = os.path.join(os.environ["BENCH_COUNTERS"], str(os.getpid()))
    with open(path, "w+b") as file:
        file.write(bytes(8))
        file.flush()
        return mmap.mmap(file.fileno(), 8)


COUNTER = new_counter()


def answer(environ, start_response):
    COUNTER[:] = (int.from_bytes(COUNTER, "little") + 1).to_bytes(8, "little")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
