"""Requests for notes with defaults, so that a test shows only the values that matter to it."""

from __future__ import annotations

from typing import Any, Final

from chassis.testing import new_uuid
from tests.support.notes_svc import notes_pb2 as pb

NOTE_SERVICE: Final = "/notes.v1.NoteService"


def create_note_request(author_id: str = "", **changes: Any) -> pb.CreateNoteRequest:
    """Return a request for a note; the default author is a new one."""
    return pb.CreateNoteRequest(**{"author_id": author_id or new_uuid(), "text": "Buy tea", **changes})


def an_update(note_id: str, text: str = "Buy coffee", **changes: Any) -> pb.UpdateNoteRequest:
    """Return a request for another text."""
    return pb.UpdateNoteRequest(**{"id": note_id, "text": text, **changes})
