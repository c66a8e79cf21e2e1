"""
ASGI config for shop project.

It exposes the ASGI callable as a module-level variable named ``application``. The views stay synchronous: Django runs each in
a thread. A stream that a synchronous view makes is collected whole by Django before its first byte leaves.
"""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

application = get_asgi_application()
