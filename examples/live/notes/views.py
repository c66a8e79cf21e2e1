"""A page of notes. Plain synchronous Django; what is new reaches every open page at once."""

from django import forms
from django.db import transaction
from django.shortcuts import redirect, render
from django_eventstream import send_event

from .models import Note


class NoteForm(forms.ModelForm):
    class Meta:
        model = Note
        fields = ["text"]


def notes(request):
    form = NoteForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        note = form.save()
        # To every page that is open, by way of Hostler, once the note is there for those that are loaded anew.
        transaction.on_commit(lambda: send_event("notes", "message", {"id": note.pk, "text": note.text}))
        return redirect("/")
    return render(request, "notes/notes.html", {"form": form, "notes": Note.objects.order_by("-pk")[:20]})
