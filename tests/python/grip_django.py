"""A Django site whose clients are held at the edge: django-grip and django-eventstream, unmodified, on sync workers.

Where it publishes to, and where its database is, the environment says.
"""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import include, path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests on this machine only, and long enough",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_eventstream"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["GRIP_DATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", "django_grip.GripMiddleware"],
    GRIP_URL=os.environ["GRIP_URL"],
    EVENTSTREAM_STORAGE_CLASS="django_eventstream.storage.DjangoModelStorage",
    EVENTSTREAM_CHANNELMANAGER_CLASS="grip_django.ByFile",
)
django.setup()

from django.core.management import call_command  # noqa: E402  All below reads the settings.
from django.db import connections  # noqa: E402
from django_eventstream import channel_permission_changed, send_event  # noqa: E402
from django_eventstream.channelmanager import DefaultChannelManager  # noqa: E402
from django_eventstream.utils import get_storage  # noqa: E402
from django_grip import publish, set_hold_longpoll, set_hold_stream  # noqa: E402
from gripcontrol import HttpResponseFormat, HttpStreamFormat  # noqa: E402

# Once, before the workers: gunicorn is started with --preload.
call_command("migrate", verbosity=0)
connections.close_all()

DENIED = os.environ["GRIP_DATABASE"] + ".denied"


class ByFile(DefaultChannelManager):
    """Nobody may read a channel any more that the file names."""

    def can_read_channel(self, user, channel):
        try:
            with open(DENIED) as denied:
                return channel not in denied.read().split()
        except FileNotFoundError:
            return True


def send(request, channel):
    """An event that is kept, and published."""
    skip = request.GET.getlist("skip")
    send_event(channel, "message", {"text": request.GET["text"]}, skip_user_ids=skip, async_publish=False)
    return HttpResponse("sent")


def lose(request, channel):
    """An event that is kept, and whose publication is lost."""
    get_storage().append_event(channel, "message", '{"text": "%s"}' % request.GET["text"])
    return HttpResponse("lost")


def kick(request, channel):
    with open(DENIED, "w") as denied:
        denied.write(channel)
    channel_permission_changed(None, channel)
    return HttpResponse("kicked")


def poll(request):
    set_hold_longpoll(request, "poll", timeout=int(request.GET.get("timeout", "50")))
    response = JsonResponse({"news": []})
    response["X-Kept"] = "yes"
    response["X-Replaced"] = "no"
    return response


def answer(request):
    headers = {"Content-Type": "text/plain", "X-Replaced": "yes"}
    publish("poll", HttpResponseFormat(code=201, headers=headers, body=request.GET["text"]), blocking=True)
    return HttpResponse("answered")


def stream(request):
    keep_alive = {"keep_alive_data": "tick\n", "keep_alive_timeout": 1} if "tick" in request.GET else {}
    set_hold_stream(request, ["room", "hall"], **keep_alive)
    return HttpResponse("[open]\n", content_type="text/plain")


def say(request):
    publish("room", HttpStreamFormat(request.GET["text"] + "\n"), blocking=True)
    return HttpResponse("said")


def quick(request):
    grip = request.grip
    return JsonResponse({"proxied": grip.proxied, "signed": grip.signed, "features": sorted(grip.features)})


urlpatterns = [
    path("events/<str:channel>/", include("django_eventstream.urls"), {"format-channels": ["{channel}"]}),
    path("send/<str:channel>/", send),
    path("lose/<str:channel>/", lose),
    path("kick/<str:channel>/", kick),
    path("poll/", poll),
    path("answer/", answer),
    path("stream/", stream),
    path("say/", say),
    path("quick/", quick),
]

application = get_wsgi_application()
