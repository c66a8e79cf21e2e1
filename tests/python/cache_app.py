"""
A WSGI app that answers as it is told, for whatever keeps its answers.

It is told in the query, so that requests that are told something else are other requests:

    id=NAME          what the record of runs calls it (examples/shop/tour/journal.py). Runs of one name are numbered.
    plan=A,B,C       what becomes of the first, the second, the third run; the last holds for all that follow
    f=NAME: VALUE    a response field, any number of times
    size=BYTES       the body is a pattern of this length; otherwise it tells in JSON what the app has seen
    ms=N             the view works so long before it answers
    gate=NAME        the view answers when there is a file of this name beside the record
    half=NAME        the second half of the body comes then
    tag=TAG          the ETag; a request that has it is answered with 304

Of a plan, a number is a status; a failure (500 and more) says nothing of caching. Other words:

    kill             the worker dies before it has said anything
    cut              the worker dies in the middle of the body
    private          the answer says `Cache-Control: private`
    nostore          the answer says `Cache-Control: no-store`
    cookie           the answer sets a cookie
    vary             the answer says `Vary: *`
"""

import json
import os
import signal
import time
from pathlib import Path
from urllib.parse import parse_qs

from tour import counter
from tour.journal import Journaled

FOLDER = Path(os.environ["SHOP_JOURNAL"]).parent
PATTERN = b"hostler\n"
PATIENCE = 60


def application(environ, start_response):
    asked = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)

    def said(name, default=""):
        return asked.get(name, [default])[0]

    body = environ["wsgi.input"].read()
    run = counter.increment(FOLDER / f"runs-{said('id', 'none')}")
    plan = said("plan", "200").split(",")
    word = plan[min(run, len(plan)) - 1]
    time.sleep(float(said("ms", "0")) / 1000)
    if said("gate"):
        wait(said("gate"))
    if word == "kill":
        die()
    fields = [tuple(part.strip() for part in field.split(":", 1)) for field in asked.get("f", [])]
    if word.isdigit() and int(word) >= 500:
        fields = [field for field in fields if field[0].lower() != "cache-control"]
    if word in OTHERWISE:
        name = OTHERWISE[word][0]
        fields = [field for field in fields if field[0].lower() != name.lower()] + [OTHERWISE[word]]
    if said("tag"):
        fields.append(("ETag", said("tag")))
        if said("tag") in environ.get("HTTP_IF_NONE_MATCH", ""):
            start_response("304 Not Modified", fields)
            return []
    if said("size"):
        size = int(said("size"))
        content = (PATTERN * (size // len(PATTERN) + 1))[:size]
    else:
        content = json.dumps(seen(environ, run, len(body))).encode()
    if not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", "text/plain; charset=utf-8"))
    fields.append(("Content-Length", str(len(content))))
    start_response(f"{word if word.isdigit() else 200} As told", fields)
    return pieces(content, word, said("half"))


def pieces(content, word, gate):
    middle = len(content) // 2
    if word == "cut" or gate:
        yield content[:middle]
        if word == "cut":
            # What was written has left: the server writes each piece as it comes.
            die()
        wait(gate)
        yield content[middle:]
    else:
        yield content


def seen(environ, run, length):
    """What the app could let into a page."""
    fields = {name: value for name, value in environ.items() if name.startswith("HTTP_")}
    # Another one for each request, and nobody's wish.
    for name in ["HTTP_X_REQUEST_ID", "HTTP_X_REQUEST_START", "HTTP_TRACEPARENT"]:
        fields.pop(name, None)
    return {
        "run": run,
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ.get("QUERY_STRING", ""),
        "scheme": environ["wsgi.url_scheme"],
        "length": length,
        "fields": fields,
    }


def wait(gate):
    ends = time.monotonic() + PATIENCE
    while not (FOLDER / f"gate-{gate}").exists() and time.monotonic() < ends:
        time.sleep(0.005)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


OTHERWISE = {
    "private": ("Cache-Control", "private, max-age=60"),
    "nostore": ("Cache-Control", "no-store"),
    "cookie": ("Set-Cookie", "mine=1"),
    "vary": ("Vary", "*"),
}

application = Journaled(application, os.environ["SHOP_JOURNAL"])
