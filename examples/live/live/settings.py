"""
Django settings for live project.

What differs from one place to another comes from the environment:

    LIVE_SECRET_KEY  required in production
    LIVE_FOLDER      where the database lies; run beside manage.py by default
    GRIP_URL         where Hostler takes what is published, and the key: the same as in hostler.yaml
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# The default is public. It is good enough to try this on one's own machine, and for nothing else.
SECRET_KEY = os.environ.get("LIVE_SECRET_KEY", "django-insecure-for-development-on-this-machine-only")

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

CSRF_COOKIE_SECURE = True

INSTALLED_APPS = ["django_eventstream", "notes"]

MIDDLEWARE = [
    "django_grip.GripMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]

ROOT_URLCONF = "live.urls"

TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

WSGI_APPLICATION = "live.wsgi.application"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(os.environ.get("LIVE_FOLDER") or BASE_DIR / "run") / "live.sqlite3",
    }
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

USE_TZ = True

# Hostler asks the app what came while nobody could be told; django-eventstream knows it from the database.
EVENTSTREAM_STORAGE_CLASS = "django_eventstream.storage.DjangoModelStorage"

GRIP_URL = os.environ.get("GRIP_URL", "http://127.0.0.1:5561/?iss=hostler&key=only-for-trying-it-on-ones-own-machine")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
