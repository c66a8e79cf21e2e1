"""A Django site that hands its downloads to the server in front of it: django-sendfile2, unmodified.

Which backend that speaks to, and where the files are, the environment says.
"""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests on this machine only",
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    SENDFILE_BACKEND=os.environ["SENDFILE_BACKEND"],
    SENDFILE_ROOT=os.environ["DOWNLOADS"],
    SENDFILE_URL="/protected",
)
django.setup()

from django_sendfile import sendfile  # noqa: E402  It reads the settings.


def download(request, name):
    response = sendfile(request, name, attachment=True)
    response.set_cookie("downloaded", name.isascii())
    return response


def quick(request):
    return HttpResponse("quick")


urlpatterns = [path("download/<path:name>", download), path("quick", quick)]

application = get_wsgi_application()
