"""URLs of the project."""

import django_eventstream
from django.urls import include, path
from notes import views

urlpatterns = [
    path("", views.notes),
    path("events/", include(django_eventstream.urls), {"channels": ["notes"]}),
]
