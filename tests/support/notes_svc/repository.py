"""The statements on notes and on what is known of authors. Set-based: a list in, a list out. Never commits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from chassis.database.database import as_json, execute, uuid_array
from chassis.events import outbox
from chassis.idempotency.inserts import insert_once
from tests.support.notes_svc.model import AuthorId, Note, NoteFilter, NoteId, NoteState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.database.statement_pool import Fetch
    from chassis.idempotency.inserts import Insert
    from chassis.server.pagination import PageRequest

# In the order in which _to_note() takes them.
_COLUMNS: Final = "notes.id, author_id, body, labels, state, created_at, updated_at, version"

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
# The owner is a condition of the query, so that no later line can forget it.
_BY_IDS: Final = f"""
    SELECT wanted.n, {_COLUMNS}
    FROM unnest(CAST(%s AS uuid[]), CAST(%s AS uuid[])) WITH ORDINALITY AS wanted (id, owner, n)
    JOIN notes ON notes.id = wanted.id AND notes.author_id = coalesce(wanted.owner, notes.author_id)
"""
# In the order of the key, so that two transactions that lock the same notes cannot lock each other.
_BY_IDS_LOCKED: Final = f"{_BY_IDS} ORDER BY notes.id FOR UPDATE OF notes"
_BY_IDS_LOCKED_IF_FREE: Final = f"{_BY_IDS_LOCKED} SKIP LOCKED"
_UPDATE: Final = f"""
    WITH changed AS MATERIALIZED (
        SELECT *
        FROM json_to_recordset(CAST(%s AS json)) AS changed (
            id uuid, body text, state text, updated_at timestamptz, version integer, {outbox.COLUMNS}
        )
    ),
    updated AS (
        UPDATE notes
        SET body = changed.body, state = changed.state, updated_at = changed.updated_at, version = changed.version
        FROM changed
        WHERE notes.id = changed.id AND notes.version = changed.version - 1
    )
    {outbox.insert_from("changed")}
"""
_PAGE: Final = f"""
    SELECT {_COLUMNS}
    FROM notes
    WHERE id < coalesce(CAST(%s AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        AND author_id = coalesce(CAST(%s AS uuid), author_id)
        AND author_id = coalesce(CAST(%s AS uuid), author_id)
        AND state = coalesce(CAST(%s AS text), state)
    ORDER BY id DESC
    LIMIT %s
"""
_WHICH: Final = "SELECT id FROM notes WHERE id = ANY (CAST(%s AS uuid[]))"
_CLOSED: Final = "SELECT id FROM known_authors WHERE state = 'CLOSED' AND id = ANY (CAST(%s AS uuid[]))"

_open_notes_of = text("SELECT id FROM notes WHERE author_id = ANY (:authors) AND state = 'OPEN' ORDER BY id")
# CLOSED is final: a later event changes nothing.
_put_authors = text("""
    INSERT INTO known_authors (id, state, updated_at)
    SELECT id, state, updated_at
    FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:times AS timestamptz[]))
        AS new (id, state, updated_at)
    ORDER BY id
    ON CONFLICT ON CONSTRAINT known_authors_pkey DO UPDATE
    SET state = excluded.state, updated_at = excluded.updated_at
    WHERE known_authors.state <> 'CLOSED'
""")


@dataclass(frozen=True, slots=True)
class NoteLookup:
    """A note to find; only one of this owner, if there is one."""

    note_id: NoteId
    owner: AuthorId | None = None


@dataclass(frozen=True, slots=True)
class NoteUpdate:
    """The next version of a note, to write, and the event that tells of it."""

    note: Note
    event: outbox.Event


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


async def find_notes(fetch: Fetch, lookups: Sequence[NoteLookup]) -> list[Note | None]:
    """Return for each lookup the note, or None if there is none."""
    return _in_order(await fetch(_BY_IDS, *_wanted(lookups)), len(lookups))


async def which(fetch: Fetch, ids: Sequence[NoteId]) -> set[NoteId]:
    """Return those of the notes that there are."""
    return {NoteId(note_id) for (note_id,) in await fetch(_WHICH, uuid_array(ids))}


async def closed_authors(fetch: Fetch, ids: Sequence[AuthorId]) -> set[AuthorId]:
    """Return those of the authors that are closed."""
    return {AuthorId(author_id) for (author_id,) in await fetch(_CLOSED, uuid_array(ids))}


def lock_notes(connection: Connection, lookups: Sequence[NoteLookup], *, wait: bool) -> list[Note | None]:
    """Return what find_notes() does, and lock the rows until the transaction ends.

    Args:
        connection: inside the transaction.
        lookups: which.
        wait: whether to wait for rows that other transactions have locked; otherwise those notes are None.
    """
    statement = _BY_IDS_LOCKED if wait else _BY_IDS_LOCKED_IF_FREE
    return _in_order(execute(connection, statement, *_wanted(lookups)), len(lookups))


def update_notes(connection: Connection, updates: Sequence[NoteUpdate]) -> None:
    """Write the next version of different notes that this transaction has locked, and their events."""
    if not updates:
        return
    rows = [
        {
            "id": each.note.id,
            "body": each.note.text,
            "state": each.note.state,
            "updated_at": each.note.updated_at,
            "version": each.note.version,
            **each.event.row(),
        }
        for each in updates
    ]
    execute(connection, _UPDATE, as_json(rows))


def list_notes(connection: Connection, page: PageRequest, *, filters: NoteFilter) -> list[Note]:
    """Return a page of notes, newest first, and one more if there are more."""
    rows = execute(connection, _PAGE, page.after, filters.owner, filters.author_id, filters.state, page.size + 1)
    return [_to_note(row) for row in rows]


def open_notes_of(connection: Connection, authors: Sequence[AuthorId]) -> list[NoteId]:
    """Return the open notes of the authors."""
    return [NoteId(row.id) for row in connection.execute(_open_notes_of, {"authors": list(authors)})]


def put_authors(connection: Connection, known: Mapping[AuthorId, tuple[str, datetime]]) -> None:
    """Write the state of each author, and since when it is so."""
    states = [state for state, _ in known.values()]
    times = [time for _, time in known.values()]
    connection.execute(_put_authors, {"ids": list(known), "states": states, "times": times})


def _wanted(lookups: Sequence[NoteLookup]) -> tuple[str, str]:
    return uuid_array([each.note_id for each in lookups]), uuid_array([each.owner for each in lookups])


def _in_order(rows: Sequence[Sequence[Any]], count: int) -> list[Note | None]:
    found: list[Note | None] = [None] * count
    for n, *columns in rows:
        found[n - 1] = _to_note(columns)
    return found


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
