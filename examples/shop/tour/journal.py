"""
A record of every run of the app, shared by all workers: how many ran at once, and whether a request ran twice.

Each run has two lines in the file, and the last one is missing when the worker was killed:

    begin RUN PID NANOSECONDS METHOD ID
    end RUN PID NANOSECONDS

RUN is unique in the file, the time is the machine's monotonic clock (the same one in all processes), and ID is that of the
query (`?id=`), or `-`. A run lasts as long as the worker is busy with it: from the call of the app to the end of `close()`,
in which Django sends `request_finished`.
"""

import itertools
import os
import time
from urllib.parse import parse_qs, quote


class Journaled:
    """The WSGI app `app`, with a record of its runs in the file `path`."""

    def __init__(self, app, path):
        self.app = app
        self.path = path
        self.numbers = itertools.count()

    def __call__(self, environ, start_response):
        run = f"{os.getpid()}.{next(self.numbers)}"
        self.write("begin", run, environ["REQUEST_METHOD"], request_id(environ))
        try:
            return Answer(self.app(environ, start_response), lambda: self.write("end", run))
        except BaseException:
            self.write("end", run)
            raise

    def write(self, what, run, *more):
        line = " ".join([what, run, str(os.getpid()), str(time.monotonic_ns()), *more]) + "\n"
        # Opened each time, so that the file may be taken away. One write to a file opened so is never mixed with another's.
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            os.write(file, line.encode("ascii"))
        finally:
            os.close(file)


class Answer:
    """What the app gave, with one thing more to do when the server is done with it."""

    def __init__(self, pieces, done):
        self.pieces = pieces
        self.done = done

    def __iter__(self):
        return iter(self.pieces)

    def close(self):
        try:
            if hasattr(self.pieces, "close"):
                self.pieces.close()
        finally:
            self.done()


def request_id(environ):
    return quote(parse_qs(environ.get("QUERY_STRING", "")).get("id", ["-"])[0], safe="")
