"""The events of notes: made from the model, as messages of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis.events.cloudevents import payload_of
from chassis.events.outbox import Event
from tests.support.notes_svc.notes_pb2 import NoteChanged, NoteCreated, Size

if TYPE_CHECKING:
    from tests.support.notes_svc.model import Note


def note_created(note: Note) -> Event:
    """Return the event of a new note, with the trace of the current call."""
    size = Size(characters=len(note.text), labels=len(note.labels))
    message = NoteCreated(note_id=str(note.id), author_id=str(note.author_id), size=size)
    return Event("note.created", note.id, note.version, payload_of(message), note.updated_at)


def note_changed(note: Note, *, traceparent: str) -> Event:
    """Return the event of a note's last change.

    Args:
        note: after the change.
        traceparent: of the call that changed it; empty for none.
    """
    message = NoteChanged(note_id=str(note.id), author_id=str(note.author_id), state=note.state.value)
    return Event("note.changed", note.id, note.version, payload_of(message), note.updated_at, traceparent)
