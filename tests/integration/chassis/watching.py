"""A client that watches notes and records what it receives, and events for it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from chassis.testing import bearer
from tests.integration.watching import recording
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from grpc import aio

    from tests.integration.databases import TestDatabase
    from tests.integration.watching import Watch


@contextlib.asynccontextmanager
async def watching(
    channel: aio.Channel, *, token: str = "", access: str = "", author_id: str = ""
) -> AsyncIterator[Watch]:
    """Watch while the block runs, from its beginning on; with an access token, as its user."""
    request = pb.WatchNotesRequest(resume_token=token, author_id=author_id)
    call = NoteServiceStub(channel).WatchNotes(request, metadata=bearer(access) if access else ())
    async with recording(call) as watch:
        yield watch


def seen(changes: Sequence[pb.NoteChange]) -> list[tuple[str, str]]:
    """Return which version of which note each of them told of."""
    return [(change.note_id, change.etag) for change in changes]


INSERT: Final = """
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    SELECT gen_random_uuid(), 'note.created', gen_random_uuid(), 1, '{"authorId": "ada"}', '', now()
    FROM generate_series(1, %s)
"""


def write(database: TestDatabase, count: int) -> None:
    """Commit events of new notes."""
    database.query(INSERT, count)


def ids_in(database: TestDatabase) -> list[str]:
    return [str(row[0]) for row in database.query("SELECT id FROM outbox ORDER BY transaction, position")]
