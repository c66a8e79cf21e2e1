"""URL configuration for shop project."""

from django.urls import include, path

urlpatterns = [
    path("", include("tour.urls")),
]

# Says what was wrong with a number in the query, instead of a bare "Bad Request".
handler400 = "tour.views.bad_request"
