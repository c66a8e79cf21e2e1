"""
WSGI config for shop project.

It exposes the WSGI callable as a module-level variable named ``application``.
"""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

application = get_wsgi_application()

# Off unless it is asked for: a record of every time the app ran.
if os.environ.get("SHOP_JOURNAL"):
    from tour.journal import Journaled

    application = Journaled(application, os.environ["SHOP_JOURNAL"])
