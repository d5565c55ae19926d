"""The statements on notes and on known authors. Set-based: a list in, a list out. Never commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Uuid, column, select, table, text

from chassis.database.keyed import KeyedRows, Lookup
from chassis.database.statements import as_json, execute, uuid_array
from chassis.events import outbox
from chassis.idempotency.inserts import insert_once
from tests.support.notes_svc.model import AuthorId, Note, NoteFilter, NoteId, NoteState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.database.statement_pool import Fetch
    from chassis.idempotency.inserts import Insert
    from chassis.server.pagination import Page, PageRequest

# In the order in which _to_note() takes them.
_NOTES: Final = table(
    "notes",
    column("id", Uuid),
    column("author_id", Uuid),
    column("body"),
    column("labels"),
    column("state"),
    column("created_at"),
    column("updated_at"),
    column("version"),
)
_INSERT: Final = insert_once(
    columns="id uuid, author_id uuid, body text, labels jsonb, created_at timestamptz",
    inserts="""
        inserted AS (
            INSERT INTO notes (id, author_id, body, labels, state, created_at, updated_at, version)
            SELECT id, author_id, body, labels, 'OPEN', created_at, created_at, 1
            FROM fresh
            RETURNING id
        )
    """,
    returning="SELECT id FROM inserted",
)
_UPDATE: Final = outbox.write_with_events(
    columns="id uuid, body text, state text, updated_at timestamptz, version integer",
    writes="""
        updated AS (
            UPDATE notes
            SET body = changed.body, state = changed.state, updated_at = changed.updated_at, version = changed.version
            FROM changed
            WHERE notes.id = changed.id AND notes.version = changed.version - 1
        )
    """,
)
_WHICH: Final = "SELECT id FROM notes WHERE id = ANY (CAST(%s AS uuid[]))"
_CLOSED: Final = "SELECT id FROM known_authors WHERE state = 'CLOSED' AND id = ANY (CAST(%s AS uuid[]))"

_open_notes_of = text("SELECT id FROM notes WHERE author_id = ANY (:authors) AND state = 'OPEN' ORDER BY id")


async def insert_notes(fetch: Fetch, inserts: Sequence[Insert[Note]]) -> set[NoteId]:
    """Insert new notes, as InsertBatch says."""
    rows = [
        {
            "id": note.id,
            "author_id": note.author_id,
            "body": note.text,
            "labels": note.labels,
            "created_at": note.created_at,
            **each.row(),
        }
        for each in inserts
        for note in (each.resource,)
    ]
    return {NoteId(note_id) for (note_id,) in await fetch(_INSERT, as_json(rows))}


async def find_notes(fetch: Fetch, lookups: Sequence[Lookup[NoteId]]) -> list[Note | None]:
    """Return for each lookup the note, or None if there is none."""
    return await _ROWS.find(fetch, lookups)


async def which(fetch: Fetch, ids: Sequence[NoteId]) -> set[NoteId]:
    """Return those of the notes that there are."""
    return {NoteId(note_id) for (note_id,) in await fetch(_WHICH, uuid_array(ids))}


async def closed_authors(fetch: Fetch, ids: Sequence[AuthorId]) -> set[AuthorId]:
    """Return those of the authors that are closed."""
    return {AuthorId(author_id) for (author_id,) in await fetch(_CLOSED, uuid_array(ids))}


def lock_notes(connection: Connection, lookups: Sequence[Lookup[NoteId]], *, wait: bool) -> list[Note | None]:
    """Return what find_notes() does, and lock the rows as KeyedRows.lock() does."""
    return _ROWS.lock(connection, lookups, wait=wait)


def update_notes(connection: Connection, changed: Sequence[tuple[Note, outbox.Event]]) -> None:
    """Write the next version of different notes that this transaction has locked, and their events."""
    if not changed:
        return
    rows = [
        {
            "id": note.id,
            "body": note.text,
            "state": note.state,
            "updated_at": note.updated_at,
            "version": note.version,
            **event.row(),
        }
        for note, event in changed
    ]
    execute(connection, _UPDATE, as_json(rows))


def list_notes(connection: Connection, page: PageRequest, *, filters: NoteFilter) -> Page[Note]:
    """Return a page of notes, newest first."""
    query = page.newest_first(select(_NOTES), _NOTES.c.id)
    for name, wanted in (("author_id", filters.owner), ("author_id", filters.author_id), ("state", filters.state)):
        if wanted is not None:
            query = query.where(_NOTES.c[name] == wanted)
    return page.split([_to_note(row) for row in connection.execute(query)])


def open_notes_of(connection: Connection, authors: Sequence[AuthorId]) -> list[NoteId]:
    """Return the open notes of the authors."""
    return [NoteId(row.id) for row in connection.execute(_open_notes_of, {"authors": list(authors)})]


def _to_note(columns: Sequence[Any]) -> Note:
    note_id, author_id, body, labels, state, created_at, updated_at, version = columns
    return Note(
        id=note_id,
        author_id=author_id,
        text=body,
        labels=tuple(labels),
        quoted_id=None,
        state=NoteState(state),
        created_at=created_at,
        updated_at=updated_at,
        version=version,
    )


_ROWS: Final = KeyedRows(list(_NOTES.c), _to_note, owner=_NOTES.c.author_id)
