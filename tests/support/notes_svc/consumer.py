"""Applies the events of authors: keeps their states, and archives the notes of those that are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chassis.clock import SystemClock
from chassis.errors import DomainError
from chassis.events.cloudevents import Malformed, data_of
from tests.support.notes_svc import repository
from tests.support.notes_svc.events import note_changed
from tests.support.notes_svc.model import AuthorId, ChangeNote, NoteState
from tests.support.notes_svc.notes_pb2 import AuthorChanged
from tests.support.notes_svc.repository import NoteLookup, NoteUpdate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent

_TYPES: Final = {"author.created", "author.changed", "author.closed"}
_STATES: Final = {"ACTIVE", "SUSPENDED", "CLOSED"}


def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Apply events of authors."""
    known: dict[AuthorId, tuple[str, datetime]] = {}
    traces: dict[AuthorId, str] = {}
    for event in events:
        if event.type in _TYPES:  # a type of a newer version is skipped
            author_id = AuthorId(event.subject)
            known[author_id], traces[author_id] = (_state(event), event.time), event.traceparent
    if not known:
        return
    repository.put_authors(connection, known)
    _archive(connection, {author: traces[author] for author, (state, _) in known.items() if state == "CLOSED"})


def _archive(connection: Connection, traces: Mapping[AuthorId, str]) -> None:
    """Archive the open notes of the authors; their events have the trace of the author's."""
    now = SystemClock().now()
    updates: list[NoteUpdate] = []
    lookups = [NoteLookup(note_id) for note_id in repository.open_notes_of(connection, list(traces))]
    for note in repository.lock_notes(connection, lookups, wait=True):
        if note is None:
            continue
        try:
            archived = note.changed(ChangeNote(note_id=note.id, owner=None, state=NoteState.ARCHIVED), now=now)
        except DomainError:
            continue  # it was archived while this transaction waited for the lock
        updates.append(NoteUpdate(archived, note_changed(archived, traceparent=traces[note.author_id])))
    repository.update_notes(connection, updates)


def _state(event: CloudEvent) -> str:
    state = data_of(event, AuthorChanged).state
    if state not in _STATES:
        raise Malformed("has a state that is none")
    return state
