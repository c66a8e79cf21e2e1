"""A WSGI app without a framework, so that each path does one thing to the server and nothing is caught or mended."""

import json


def application(environ, start_response):
    view = VIEWS.get(environ["PATH_INFO"], see)
    return view(environ, start_response)


def see(environ, start_response):
    """What the server told the app; strings are latin-1, as WSGI has them."""
    body = json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()
    return answer(start_response, body, "application/json")


def echo(environ, start_response):
    """The body, as long as CONTENT_LENGTH says that it is."""
    return answer(start_response, environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)))


def unframed(environ, start_response):
    """Of unknown length."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([b"as long ", b"as it ", b"takes"])


def chunked(environ, start_response):
    """Frames its body itself, which WSGI forbids and uWSGI lets pass."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")])
    return [b"2\r\nok\r\n0\r\n\r\n"]


def cut(environ, start_response):
    """Fails in the middle of a body whose length it has told."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100")])
    yield b"hello"
    raise RuntimeError("in the middle of the body")


def fail(environ, start_response):
    """Fails before it has said anything."""
    raise RuntimeError("before the head")


def answer(start_response, body, media_type="application/octet-stream"):
    start_response("200 OK", [("Content-Type", media_type), ("Content-Length", str(len(body)))])
    return [body]


VIEWS = {"/echo": echo, "/unframed": unframed, "/chunked": chunked, "/cut": cut, "/fail": fail}
