"""While the service that it asks is down, calls that need it are refused at once, and others are served."""

from __future__ import annotations

import contextlib
import statistics
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode, aio
from structlog.testing import capture_logs

from chassis.client.breaker import BreakerSettings
from chassis.testing import new_uuid, plain_channel, refusal_of, until
from tests.integration.chassis.notes import notes_service
from tests.integration.inprocess import database_settings
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import create_note_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.testing import Refusal
    from tests.integration.databases import TestDatabase

RESET_TIMEOUT_S = 1


async def a_quoted_note(library: str) -> str:
    async with plain_channel(library) as channel:
        return (await NoteServiceStub(channel).CreateNote(create_note_request())).id


@pytest.fixture
async def library(authors_database: TestDatabase) -> AsyncIterator[str]:
    async with notes_service(database_settings(authors_database.url)) as address:
        yield address


@pytest.fixture
async def notes(notes_database: TestDatabase, library: str) -> AsyncIterator[NoteServiceStub]:
    """The notes service, which asks the library."""
    async with (
        notes_service(database_settings(notes_database.url), library=library) as address,
        plain_channel(address) as channel,
    ):
        yield NoteServiceStub(channel)


async def test_after_5_failures_calls_are_refused_at_once_until_the_library_is_back(
    authors_database: TestDatabase, notes_database: TestDatabase
) -> None:
    library_settings = database_settings(authors_database.url)
    async with contextlib.AsyncExitStack() as rest:
        async with notes_service(library_settings) as library:
            breaker = BreakerSettings(fail_max=5, success_threshold=2, reset_timeout_s=RESET_TIMEOUT_S)
            service = notes_service(database_settings(notes_database.url), library=library, breaker=breaker)
            channel = plain_channel(await rest.enter_async_context(service))
            notes = NoteServiceStub(await rest.enter_async_context(channel))
            create = create_note_request(quoted_note_id=await a_quoted_note(library))
            note = await notes.CreateNote(create)

        for _ in range(5):
            require_library_unavailable(await refusal_of(notes.CreateNote(create)))
        refusals, median_s = await refused_while_open(notes, create)

        for refusal in refusals:
            require_library_unavailable(refusal)
        times_left_s = [refusal.retry_after_s or 0 for refusal in refusals]
        assert 0 < times_left_s[0] < RESET_TIMEOUT_S
        assert times_left_s == sorted(set(times_left_s), reverse=True)
        assert median_s < 0.05  # it looks up authors, and the machine is busy; a call may take 2 s
        assert await notes.GetNote(pb.GetNoteRequest(id=note.id)) == note
        assert await notes.CreateNote(create_note_request())
        assert (await notes.ArchiveNote(pb.ArchiveNoteRequest(id=note.id))).state == pb.NOTE_STATE_ARCHIVED

        port = int(library.rpartition(":")[2])
        await rest.enter_async_context(notes_service(library_settings, port=port))
        await until(lambda: succeeds(notes, create))
        for _ in range(3):
            assert await succeeds(notes, create)


async def test_a_library_with_a_stuck_database_opens_the_breaker_too(
    notes: NoteServiceStub, library: str, authors_database: TestDatabase
) -> None:
    create = create_note_request(quoted_note_id=await a_quoted_note(library))
    with authors_database.locked("LOCK TABLE notes"):
        # One after the other: concurrent notes share one call of the library, and would be one failure.
        for _ in range(5):
            require_library_unavailable(await refusal_of(notes.CreateNote(create)), retry_after_header="1")
        refusals, median_s = await refused_while_open(notes, create)

    for refusal in refusals:
        require_library_unavailable(refusal, retry_after_header="60")
    assert median_s < 0.05


async def test_a_refusal_does_not_count_as_a_failure(notes: NoteServiceStub) -> None:
    refusals = [await refusal_of(notes.CreateNote(create_note_request(quoted_note_id=new_uuid()))) for _ in range(20)]

    assert {refusal.reason for refusal in refusals} == {"QUOTED_NOTE_NOT_FOUND"}


async def refused_while_open(notes: NoteServiceStub, create: pb.CreateNoteRequest) -> tuple[list[Refusal], float]:
    """Return 20 refusals and the median of the seconds that each took, by the service's own log.

    The test's own clock would also measure how busy the machine is with other things.
    """
    with capture_logs() as logged:
        refusals = [await refusal_of(notes.CreateNote(create)) for _ in range(20)]
    took_ms = [entry["duration_ms"] for entry in logged if entry["event"] == "rpc.handled"]
    return refusals, statistics.median(took_ms) / 1000


async def succeeds(notes: NoteServiceStub, create: pb.CreateNoteRequest) -> bool:
    """Return whether a note is written rather than refused for want of the library."""
    try:
        await notes.CreateNote(create)
    except aio.AioRpcError as error:
        if error.code() is StatusCode.UNAVAILABLE:
            return False
        raise
    return True


def require_library_unavailable(refusal: Refusal, *, retry_after_header: str = "1") -> None:
    assert (refusal.code, refusal.domain) == (StatusCode.UNAVAILABLE, "notes.v1")
    assert refusal.reason == "LIBRARY_UNAVAILABLE"
    assert refusal.retry_after_s is not None
    assert refusal.retry_after_s > 0
    assert refusal.retry_after_header == retry_after_header
