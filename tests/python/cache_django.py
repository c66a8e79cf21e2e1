"""
A Django site with users, each page of which says who sees it, and which says of caching whatever the query tells it to.

    cc=VALUE     Cache-Control of the answer
    vary=no      without the `Vary: Cookie` that Django has put there
    etag=no      without an ETag

Sessions are signed cookies, as in the shop: nothing has to be kept beside the workers.
"""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import Context, Template
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests on this machine only",
    INSTALLED_APPS=["django.contrib.sessions", "django.contrib.messages"],
    MIDDLEWARE=[
        f"{__name__}.AsTold",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MESSAGE_STORAGE="django.contrib.messages.storage.cookie.CookieStorage",
    CSRF_USE_SESSIONS=os.environ.get("CSRF_USE_SESSIONS") == "1",
)


class AsTold:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        if "cc" in request.GET:
            response["Cache-Control"] = request.GET["cc"]
        if request.GET.get("vary") == "no":
            del response["Vary"]
        if request.GET.get("etag") == "no":
            del response["ETag"]
        return response


django.setup()

from django.contrib import messages  # noqa: E402  It reads the settings.

FORM = Template(
    "<h1>Leave a word</h1><p>For {{ name }}.</p><form method=post>{% csrf_token %}<input name=word></form>"
)


def who(request):
    return request.session.get("name", "nobody")


def page(request, rest=""):
    """Every byte that could be another's is the name: `seen by NAME`, and who sees it is told once more in a field."""
    shown = "".join(str(message) for message in messages.get_messages(request)) if request.GET.get("messages") else ""
    return HttpResponse(f"{shown}/{rest} is seen by {who(request)}.\n", headers={"X-Seen-By": who(request)})


def plain(request):
    """The same for everybody, and without a cookie."""
    return HttpResponse("the same for everybody\n")


def form(request):
    if request.method == "POST":
        return HttpResponse(f"{who(request)} says {request.POST['word']}\n")
    from django.middleware.csrf import get_token

    # As the tag does it.
    return HttpResponse(FORM.render(Context({"csrf_token": get_token(request), "name": who(request)})))


@csrf_exempt
def enter(request):
    request.session["name"] = request.POST["name"]
    messages.success(request, f"Welcome, {request.POST['name']}! ")
    return HttpResponse("in\n")


@csrf_exempt
def leave(request):
    request.session.flush()
    return HttpResponse("out\n")


urlpatterns = [
    path("form", form),
    path("plain", plain),
    path("enter", enter),
    path("leave", leave),
    path("", page),
    path("<path:rest>", page),
]

application = get_wsgi_application()
