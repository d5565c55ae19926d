"""Applies the events of authors: keeps their states, and archives the notes of those that are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chassis.clock import SystemClock
from chassis.database.keyed import Lookup
from chassis.errors import DomainError
from chassis.events.cloudevents import Malformed, data_of
from chassis.events.copies import Copies
from tests.support.notes_svc import repository
from tests.support.notes_svc.events import note_changed
from tests.support.notes_svc.model import AuthorId, ChangeNote, NoteState
from tests.support.notes_svc.notes_pb2 import AuthorChanged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent
    from chassis.events.outbox import Event
    from tests.support.notes_svc.model import Note

_TYPES: Final = {"author.created", "author.changed", "author.closed"}
_STATES: Final = {"ACTIVE", "SUSPENDED", "CLOSED"}
_AUTHORS: Final = Copies(
    "known_authors", {"id": "uuid", "state": "text", "updated_at": "timestamptz"}, final="state = 'CLOSED'"
)


def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Apply events of authors."""
    known: dict[AuthorId, Mapping[str, object]] = {}
    traces: dict[AuthorId, str] = {}
    for event in events:
        if event.type in _TYPES:  # a type of a newer version is skipped
            author_id = AuthorId(event.subject)
            known[author_id] = {"id": author_id, "state": _state(event), "updated_at": event.time}
            traces[author_id] = event.traceparent
    if not known:
        return
    _AUTHORS.put(connection, list(known.values()))
    _archive(connection, {author: trace for author, trace in traces.items() if known[author]["state"] == "CLOSED"})


def _archive(connection: Connection, traces: Mapping[AuthorId, str]) -> None:
    """Archive the open notes of the authors; their events have the trace of the author's."""
    now = SystemClock().now()
    changed: list[tuple[Note, Event]] = []
    lookups = [Lookup(note_id) for note_id in repository.open_notes_of(connection, list(traces))]
    for note in repository.lock_notes(connection, lookups, wait=True):
        if note is None:
            continue
        try:
            archived = note.changed(ChangeNote(note_id=note.id, owner=None, state=NoteState.ARCHIVED), now=now)
        except DomainError:
            continue  # it was archived while this transaction waited for the lock
        changed.append((archived, note_changed(archived, traceparent=traces[note.author_id])))
    repository.update_notes(connection, changed)


def _state(event: CloudEvent) -> str:
    state = data_of(event, AuthorChanged).state
    if state not in _STATES:
        raise Malformed("has a state that is none")
    return state
