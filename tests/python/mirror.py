"""A WSGI app that shows what it was asked, and counts: a request that nobody sent would be seen."""

import json

COUNT = 0
PLAIN = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SCRIPT_NAME", "CONTENT_TYPE", "CONTENT_LENGTH", "wsgi.url_scheme")


def application(environ, start_response):
    global COUNT
    COUNT += 1
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    seen = {name: value for name, value in environ.items() if name.startswith("HTTP_") or name in PLAIN}
    answer = json.dumps({"count": COUNT, "environ": seen, "body": body.decode("latin-1")}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]
