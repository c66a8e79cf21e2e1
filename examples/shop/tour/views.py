"""Plain synchronous views, each of which shows one thing about serving Django behind Hostler."""

import hashlib
import math
import os
import re
import time
from urllib.parse import quote

from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse, UnreadablePostError
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_safe

from . import counter
from .forms import LoginForm

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

PIECE = 64 * KIB
PATTERN = b"hostler\n"


@require_safe
def index(request):
    """What there is to try."""
    return render(request, "tour/index.html", {"address": request.build_absolute_uri("/").rstrip("/")})


@require_safe
def slow(request):
    """Keeps a worker busy, as a slow query would."""
    seconds = number(request, "seconds", default=2, most=60)
    time.sleep(seconds)
    return JsonResponse({"seconds": seconds, "worker": os.getpid()})


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def work(request):
    """Some milliseconds of work on a request that has a name (?id=) and may have a body."""
    milliseconds = number(request, "ms", default=100, most=60_000)
    size = len(request.body)
    time.sleep(milliseconds / 1000)
    return JsonResponse({"id": request.GET.get("id", ""), "size": size, "worker": os.getpid()})


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def upload(request):
    """Takes a body of any size and says what arrived. Only one piece of it is in memory at a time."""
    if request.method != "POST":
        return render(request, "tour/upload.html")
    size = 0
    digest = hashlib.sha256()
    try:
        while piece := request.read(PIECE):
            size += len(piece)
            digest.update(piece)
    except UnreadablePostError:
        return text("The upload broke off.", status=400)
    return JsonResponse(
        {
            "size": size,
            "sha256": digest.hexdigest(),
            "content_length": request.META.get("CONTENT_LENGTH"),
            "transfer_encoding": request.META.get("HTTP_TRANSFER_ENCODING"),
        }
    )


@require_safe
def stream(request):
    """A response of unknown length that takes its time: Hostler passes each chunk on as it comes."""
    chunks = whole_number(request, "chunks", default=5, most=1000)
    delay = number(request, "delay", default=1, most=60)

    def produce():
        for n in range(1, chunks + 1):
            if n > 1:
                time.sleep(delay)
            yield f"chunk {n} of {chunks}\n"

    return StreamingHttpResponse(produce(), content_type="text/plain; charset=utf-8")


@require_safe
@never_cache
def events(request):
    """Server-sent events from a synchronous view. Such a response holds its worker until it ends."""
    count = whole_number(request, "count", default=10, most=1000)
    delay = number(request, "delay", default=1, most=60)

    def produce():
        for n in range(1, count + 1):
            if n > 1:
                time.sleep(delay)
            yield f"id: {n}\ndata: event {n} of {count}\n\n"

    response = StreamingHttpResponse(produce(), content_type="text/event-stream")
    # No proxy in front may collect events before it passes them on.
    response["X-Accel-Buffering"] = "no"
    return response


@require_safe
def page(request):
    """A large page of known length, produced as fast as it is taken."""
    size = whole_number(request, "size", default=10 * MIB, most=10 * GIB)
    response = StreamingHttpResponse(pattern(size), content_type="text/plain")
    response["Content-Length"] = size
    return response


@require_safe
def some_bytes(request, size):
    """A small response of exactly this size, in one piece."""
    if size > MIB:
        raise BadRequest(f"At most {MIB} bytes here; /page?size={size} has more.")
    return HttpResponse(b"".join(pattern(size)), content_type="application/octet-stream")


@require_http_methods(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
@csrf_exempt
def status(request, code):
    """A response with this status."""
    if not 200 <= code <= 599:
        raise BadRequest(f"{code} is no final status: 200 to 599.")
    if code in (204, 304):
        return HttpResponse(status=code)
    return text(f"This is a {code}.", status=code)


@require_safe
def header(request, size):
    """A response with one header field of this size, as large cookies make them."""
    if size > 64 * KIB:
        raise BadRequest(f"At most {64 * KIB} bytes here.")
    return HttpResponse("A large header.\n", headers={"X-Large": "h" * size}, content_type="text/plain; charset=utf-8")


@require_http_methods(["GET", "HEAD", "POST"])
@csrf_exempt
def failure(request):
    """A view with a fault."""
    raise RuntimeError("This view always fails.")


@require_safe
def to_index(request):
    """A redirect inside the site. Location is a path, so that it is right under any host and scheme."""
    return redirect("index")


@require_http_methods(["GET", "HEAD", "POST"])
def login(request):
    """A form under Django's CSRF protection, which over https also checks Origin against scheme and Host."""
    form = LoginForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        request.session["name"] = form.cleaned_data["name"]
        return redirect("login")
    return render(request, "tour/login.html", {"form": form, "name": request.session.get("name")})


@require_safe
@never_cache
def may_pass(request):
    """
    What `auth: { forward: { upstream: app, path: /may-pass, headers: [Remote-User] } }` asks before each request of a route.

    Whoever has logged in passes, and the route's app hears who it is. Everybody else is sent to the form.
    """
    name = request.session.get("name")
    if name is None:
        return redirect("login")
    return HttpResponse(status=204, headers={"Remote-User": quote(name)})


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def count(request):
    """
    Counts how often a POST ran: a request that was sent twice would show here.

    With ?seconds= the view goes on working after it has counted.
    """
    if request.method != "POST":
        return JsonResponse({"count": counter.read(settings.COUNTER_FILE)})
    seconds = number(request, "seconds", default=0, most=60)
    new = counter.increment(settings.COUNTER_FILE)
    time.sleep(seconds)
    return JsonResponse({"count": new, "worker": os.getpid()})


@require_http_methods(["GET", "HEAD", "POST"])
@csrf_exempt
@never_cache
def environ(request):
    """What the server told the app about this request, without what would let a reader act as this user."""
    seen = {name: value for name, value in request.META.items() if isinstance(value, str) and is_of_request(name)}
    if "HTTP_AUTHORIZATION" in seen:
        seen["HTTP_AUTHORIZATION"] = "(hidden)"
    if "HTTP_COOKIE" in seen:
        secret = f"({re.escape(settings.SESSION_COOKIE_NAME)}|{re.escape(settings.CSRF_COOKIE_NAME)})=[^;,]*"
        seen["HTTP_COOKIE"] = re.sub(secret, r"\1=(hidden)", seen["HTTP_COOKIE"])
    return JsonResponse(dict(sorted(seen.items())), json_dumps_params={"indent": 2})


@require_safe
def assets(request):
    """A page whose style, script and images are static files. Needs `manage.py collectstatic` first."""
    return render(request, "tour/assets.html")


def is_of_request(name):
    """Django's development server adds its own process environment; that is nobody's business."""
    prefixes = ("HTTP_", "SERVER_", "REMOTE_", "REQUEST_", "CONTENT_", "PROXY_", "wsgi.")
    return name.startswith(prefixes) or name in {"PATH_INFO", "SCRIPT_NAME", "QUERY_STRING", "RAW_URI", "HTTPS"}


def bad_request(request, exception):
    """The page of every 400; only messages of our own are repeated to the client."""
    return text(str(exception) if isinstance(exception, BadRequest) else "Bad request.", status=400)


def text(message, status=200):
    return HttpResponse(message + "\n", status=status, content_type="text/plain; charset=utf-8")


def number(request, name, default, most, kind=float):
    """A number from the query, from 0 to `most`."""
    given = request.GET.get(name, default)
    try:
        value = kind(given)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:  # NaN is never in the range
        raise BadRequest(f"{name} must be {'a whole' if kind is int else 'a'} number from 0 to {most}.")
    return value


def whole_number(request, name, default, most):
    return number(request, name, default, most, kind=int)


def pattern(size):
    """`size` bytes in pieces, of which one is in memory at a time."""
    piece = PATTERN * (PIECE // len(PATTERN))
    for _ in range(size // PIECE):
        yield piece
    yield piece[: size % PIECE]
