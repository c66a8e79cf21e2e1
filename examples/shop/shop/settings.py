"""
Django settings for shop project.

Everything that differs from one place to another comes from the environment:

    SHOP_SECRET_KEY     required in production
    SHOP_DEBUG          "1" for Django's debug pages; off by default
    SHOP_ALLOWED_HOSTS  host names beyond this machine's own, separated by commas
    SHOP_COUNTER        the file of the counter at /count
    SHOP_STATIC         the folder of `manage.py collectstatic`, which Hostler serves; run/static by default
    SHOP_FINISH_MS      milliseconds of work after each response, in a request_finished handler; 0 by default
    SHOP_JOURNAL        a file for the record of every run of the app (tour/journal.py); off by default

There is no setting about the proxy, on purpose. Hostler passes the client's Host unchanged and one X-Forwarded-Proto, which
gunicorn believes by default, so request.is_secure(), absolute links and the CSRF check are right without
SECURE_PROXY_SSL_HEADER, USE_X_FORWARDED_HOST or CSRF_TRUSTED_ORIGINS.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent


# Security

DEBUG = os.environ.get("SHOP_DEBUG", "") == "1"

# The default is public. It is good enough to try the shop on one's own machine, and for nothing else.
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "django-insecure-for-development-on-this-machine-only")

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS += [host.strip() for host in os.environ.get("SHOP_ALLOWED_HOSTS", "").split(",") if host.strip()]

SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True


# Application definition

INSTALLED_APPS = [
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "tour",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "shop.urls"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
            ],
        },
    },
]

WSGI_APPLICATION = "shop.wsgi.application"


# The shop keeps nothing in a database: sessions live in signed cookies.

DATABASES = {}

SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"


# Static files: collected under names that change with their content, so that browsers may keep them for ever.

STATIC_URL = "/static/"

STATIC_ROOT = Path(os.environ.get("SHOP_STATIC") or BASE_DIR / "run" / "static")

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}


# Internationalization

LANGUAGE_CODE = "en-gb"

TIME_ZONE = "UTC"

USE_I18N = False

USE_TZ = True


# Without DEBUG Django's own default writes errors nowhere but into mails to ADMINS.

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "stderr": {"class": "logging.StreamHandler"},
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}


# The counter at /count

COUNTER_FILE = Path(os.environ.get("SHOP_COUNTER") or BASE_DIR / "run" / "count")


# Work that goes on after the response, as signal handlers and pools of connections have it

FINISH_MS = float(os.environ.get("SHOP_FINISH_MS") or 0)
