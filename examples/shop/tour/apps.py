import time

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import request_finished


class TourConfig(AppConfig):
    name = "tour"

    def ready(self):
        if settings.FINISH_MS > 0:
            request_finished.connect(work_after_the_response)


def work_after_the_response(**_):
    """The client has its whole answer, and the worker is still busy."""
    time.sleep(settings.FINISH_MS / 1000)
