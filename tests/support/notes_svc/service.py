"""The use cases of notes. Opens the transactions."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from chassis.database.keyed import Lookup
from chassis.idempotency.inserts import IdempotentInserts
from chassis.idempotency.store import ResponseCodec
from chassis.idempotency.transactions import IdempotentTransactions, LockedChange
from tests.support.notes_svc import events, repository
from tests.support.notes_svc.errors import AuthorClosed, NoteNotFound, QuotedNoteNotFound
from tests.support.notes_svc.model import ChangeNote, Note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.errors import DomainError
    from chassis.idempotency.key import IdempotencyKey
    from chassis.idempotency.transactions import Request
    from chassis.server.pagination import Page, PageRequest
    from tests.support.notes_svc.library import Library
    from tests.support.notes_svc.model import AuthorId, NoteFilter, NoteId

_NOTE: Final = ResponseCodec.of(TypeAdapter(Note), resource_id=attrgetter("id"))


class NoteService:
    """The use cases of notes. Concurrent calls are answered in batches."""

    def __init__(self, database: Database, library: Library | None, clock: Clock) -> None:
        self._database = database
        self._library = library
        self._clock = clock
        self._lookups = database.batched_reads(repository.find_notes, name="notes.find")
        self._inserts = IdempotentInserts(
            database, repository.insert_notes, name="notes.create", check=self._check, codec=_NOTE
        )
        change = LockedChange(lock=_lock, apply=self._apply, write=_write)
        self._changes = IdempotentTransactions(
            database, change, name="notes.change", exclusive_by=attrgetter("note_id"), codec=_NOTE
        )

    async def create_note(self, note: Note, *, key: IdempotencyKey) -> Note:
        """Write a note.

        Raises:
            AuthorClosed: the author is gone.
            QuotedNoteNotFound: it quotes a note that the library does not have.
            LibraryUnavailable: the library does not answer.
            RequestIdReused: the key was used with other content.
        """
        return await self._inserts.submit(key, note, event=events.note_created(note))

    async def get_note(self, note_id: NoteId, *, owner: AuthorId | None) -> Note:
        """Return a note; only one of this owner, if there is one.

        Raises:
            NoteNotFound: there is none.
        """
        found = await self._lookups.submit(Lookup(note_id, owner))
        if found is None:
            raise NoteNotFound(note_id)
        return found

    async def which(self, ids: Sequence[NoteId]) -> set[NoteId]:
        """Return those of the notes that there are."""
        return await repository.which(self._database.fetch, ids)

    async def list_notes(self, page: PageRequest, *, filters: NoteFilter) -> Page[Note]:
        """Return a page of notes, newest first."""
        return await self._database.read(lambda connection: repository.list_notes(connection, page, filters=filters))

    async def change_note(self, command: ChangeNote, *, key: IdempotencyKey) -> Note:
        """Give a note another text, or archive it.

        Raises:
            NoteNotFound: there is no such note.
            NoteArchived, EtagMismatch: as Note.changed().
            RequestIdReused: the key was used with other content.
        """
        return await self._changes.submit(key, command)

    async def _check(self, notes: Sequence[Note]) -> Mapping[UUID, DomainError]:
        closed = await repository.closed_authors(self._database.fetch, [note.author_id for note in notes])
        refused: dict[UUID, DomainError] = {
            note.id: AuthorClosed(note.author_id) for note in notes if note.author_id in closed
        }
        quoted = {note.quoted_id for note in notes if note.quoted_id}
        if self._library and quoted:
            missing = await self._library.missing(quoted)
            refused |= {note.id: QuotedNoteNotFound(note.quoted_id) for note in notes if note.quoted_id in missing}
        return refused

    def _apply(self, command: ChangeNote, note: Note | None) -> Note:
        if note is None:
            raise NoteNotFound(command.note_id)
        return note.changed(command, now=self._clock.now())


def _lock(connection: Connection, commands: Sequence[ChangeNote], *, wait: bool) -> list[Note | None]:
    return repository.lock_notes(connection, [Lookup(each.note_id, each.owner) for each in commands], wait=wait)


def _write(connection: Connection, outcomes: Sequence[tuple[Request[ChangeNote], Note]]) -> None:
    """Write the notes that changed, with their events."""
    changed = [
        (note, events.note_changed(note, traceparent=request.traceparent))
        for request, note in outcomes
        if request.command.changes
    ]
    repository.update_notes(connection, changed)
