from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("slow", views.slow, name="slow"),
    path("work", views.work, name="work"),
    path("upload", views.upload, name="upload"),
    path("stream", views.stream, name="stream"),
    path("events", views.events, name="events"),
    path("page", views.page, name="page"),
    path("bytes/<int:size>", views.some_bytes, name="bytes"),
    path("status/<int:code>", views.status, name="status"),
    path("header/<int:size>", views.header, name="header"),
    path("failure", views.failure, name="failure"),
    path("redirect", views.to_index, name="redirect"),
    path("login", views.login, name="login"),
    path("may-pass", views.may_pass, name="may_pass"),
    path("count", views.count, name="count"),
    path("environ", views.environ, name="environ"),
    path("assets", views.assets, name="assets"),
]
