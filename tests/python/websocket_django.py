"""A Django site with django-grip, unmodified: a WebSocket as a view."""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests on this machine only",
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django_grip.GripMiddleware",
    ],
    GRIP_URL=os.environ["GRIP_URL"],
)
django.setup()

from django_grip import publish, websocket_only  # noqa: E402  It reads the settings.
from gripcontrol import WebSocketMessageFormat  # noqa: E402


@csrf_exempt
@websocket_only
def room(request, name):
    ws = request.wscontext
    if ws.is_opening():
        ws.accept()
        ws.subscribe(name)
        ws.meta["visits"] = "0"
        ws.send("signed" if request.grip.signed else "not signed")
    while ws.can_recv():
        message = ws.recv()
        if message is None:
            ws.close(ws.close_code)
            break
        ws.meta["visits"] = str(int(request.wscontext.meta["visits"]) + 1)
        if message.startswith("shout "):
            publish(name, WebSocketMessageFormat(message[6:]), blocking=True)
        else:
            ws.send(f"{ws.meta['visits']} {message}")


def quick(request):
    return HttpResponse("quick")


urlpatterns = [path("room/<name>", room), path("quick", quick)]

application = get_wsgi_application()
