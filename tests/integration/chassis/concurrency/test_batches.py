"""Calls that are answered together, on a real database: each gets its own answer, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode, aio
from sqlalchemy import event, text
from structlog.testing import capture_logs

from chassis.database import Database
from chassis.errors import DatabaseUnavailable, OutcomeUnknown, Overloaded
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import bearer, new_uuid, plain_channel, refusal_from, token_of, until
from tests.integration.chassis.notes import notes_service
from tests.integration.inprocess import database_settings
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence

    from google.protobuf.message import Message
    from sqlalchemy import Connection

    from chassis.database.statement_pool import Fetch, Rows
    from tests.integration.databases import TestDatabase

# `make test-creates` has 100,000.
CREATES = int(os.environ.get("CREATES", "5000"))


async def outcomes_of(calls: Iterable[Awaitable[Message]]) -> list[str]:
    """Return the id that each call was answered, or the reason of its refusal."""

    async def outcome(call: Awaitable[Any]) -> str:
        try:
            return str((await call).id)
        except aio.AioRpcError as error:
            return refusal_from(error).reason

    return await asyncio.gather(*(outcome(call) for call in calls))


@contextlib.contextmanager
def refusing_poison(database: TestDatabase) -> Iterator[None]:
    """Make a statement that writes a poisoned note fail."""
    database.query("ALTER TABLE notes ADD CONSTRAINT no_poison CHECK (body <> 'poison')")
    try:
        yield
    finally:
        database.query("ALTER TABLE notes DROP CONSTRAINT no_poison")


async def test_a_poisoned_note_fails_alone(notes: NoteServiceStub, notes_database: TestDatabase, author: str) -> None:
    texts = ["poison" if number % 10 == 0 else "tea" for number in range(60)]
    requests = [create_note_request(author, text=each, request_id=new_uuid()) for each in texts]

    with refusing_poison(notes_database), capture_logs():
        outcomes = await outcomes_of(notes.CreateNote(request) for request in requests)

    written = [outcome for outcome in outcomes if outcome != "INTERNAL"]
    assert [outcome == "INTERNAL" for outcome in outcomes] == [text == "poison" for text in texts]
    require_whole(notes_database, written)


async def test_requests_of_all_kinds_at_once_each_get_their_own_answer(
    notes: NoteServiceStub, notes_database: TestDatabase, author: str
) -> None:
    earlier = create_note_request(author, request_id=new_uuid())
    first = await notes.CreateNote(earlier)
    reused = create_note_request(author, request_id=earlier.request_id, text="Buy milk")
    twice = create_note_request(author, request_id=new_uuid())
    gone = new_uuid()
    notes_database.query("INSERT INTO known_authors VALUES (%s, 'CLOSED', now())", gone)
    refused = create_note_request(gone, request_id=new_uuid())
    new = [create_note_request(author, request_id=new_uuid(), text=f"{n} cups") for n in range(1, 21)]

    outcomes = await outcomes_of(
        notes.CreateNote(each) for each in [earlier, reused, twice, refused, *new, twice, reused, earlier]
    )

    assert outcomes[0] == outcomes[-1] == first.id
    assert outcomes[1] == outcomes[-2] == "REQUEST_ID_REUSED"
    assert outcomes[2] == outcomes[-3]
    assert outcomes[3] == "AUTHOR_CLOSED"
    require_whole(notes_database, [first.id, outcomes[2], *outcomes[4:-3]])
    for request, note_id in zip(new, outcomes[4:-3], strict=True):
        assert (await notes.GetNote(pb.GetNoteRequest(id=note_id))).text == request.text


async def test_owners_and_other_callers_in_one_batch_each_see_their_own_notes(notes: NoteServiceStub) -> None:
    authors = [new_uuid() for _ in range(6)]
    written = {author: (await notes.CreateNote(create_note_request(author))).id for author in authors}
    asked = [(caller, owner) for caller in written for owner in written]

    read = await outcomes_of(
        notes.GetNote(pb.GetNoteRequest(id=written[owner]), metadata=bearer(token_of(caller)))
        for caller, owner in asked
    )
    archived = await outcomes_of(
        notes.ArchiveNote(pb.ArchiveNoteRequest(id=written[owner]), metadata=bearer(token_of(caller)))
        for caller, owner in asked
    )

    assert read == archived == [written[owner] if caller == owner else "NOTE_NOT_FOUND" for caller, owner in asked]


async def test_a_locked_note_delays_no_other(notes: NoteServiceStub, notes_database: TestDatabase, author: str) -> None:
    ids = [(await notes.CreateNote(create_note_request(author))).id for _ in range(10)]
    with notes_database.locked("SELECT 1 FROM notes WHERE id = %s FOR UPDATE", ids[0]):
        stuck = asyncio.ensure_future(outcomes_of([archive(notes, ids[0])]))
        others = await outcomes_of(archive(notes, note_id) for note_id in ids[1:])
        assert not stuck.done()
        refused = await stuck

    assert others == ids[1:]
    assert refused == ["DATABASE_UNAVAILABLE"]
    assert await outcomes_of([archive(notes, ids[0])]) == ids[:1]


async def test_concurrent_changes_of_one_note_and_of_others_each_take_effect(
    notes: NoteServiceStub, notes_database: TestDatabase, author: str
) -> None:
    ids = [(await notes.CreateNote(create_note_request(author))).id for _ in range(10)]
    request_id = new_uuid()
    calls = [
        *(archive(notes, note_id) for note_id in ids),
        *(archive(notes, ids[0]) for _ in range(5)),
        *(archive(notes, ids[1], request_id=request_id) for _ in range(2)),
        archive(notes, ids[2], request_id=request_id),
        archive(notes, new_uuid()),
    ]

    outcomes = Counter(await outcomes_of(calls))

    assert outcomes["NOTE_NOT_FOUND"] == 1
    assert {outcomes[note_id] for note_id in ids[3:]} == {1}
    changes = "SELECT count(*), count(DISTINCT subject) FROM outbox WHERE type = 'note.changed'"
    assert notes_database.query(changes) == [(10, 10)]
    # A failed call leaves no key behind.
    assert notes_database.query("SELECT count(*) FROM idempotency_keys WHERE response IS NULL") == [(0,)]


def archive(notes: NoteServiceStub, note_id: str, *, request_id: str = "") -> Awaitable[pb.Note]:
    return notes.ArchiveNote(pb.ArchiveNoteRequest(id=note_id, request_id=request_id or new_uuid()))


async def test_lost_connections_lose_no_answer_and_double_no_note(
    notes: NoteServiceStub, notes_database: TestDatabase, author: str
) -> None:
    requests = [create_note_request(author, request_id=new_uuid()) for _ in range(400)]
    is_over = asyncio.Event()

    async def cut() -> None:
        while not is_over.is_set():
            await asyncio.to_thread(
                notes_database.query,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'notes_svc'",
            )
            await asyncio.sleep(0.02)  # the pace of the cuts

    cutting = asyncio.create_task(cut())
    outcomes = await outcomes_of(notes.CreateNote(request) for request in requests)
    is_over.set()
    await cutting
    # A COMMIT whose answer was lost is for the caller to repeat.
    again = await outcomes_of(notes.CreateNote(request) for request in requests)

    for before, after in zip(outcomes, again, strict=True):
        assert before in {after, "DATABASE_UNAVAILABLE"}
    require_whole(notes_database, again)


async def test_a_list_delays_no_read_of_a_single_row(notes_database: TestDatabase) -> None:
    settings = database_settings(notes_database.url, pool_size=4)
    async with notes_service(settings) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        with notes_database.locked("SELECT 1 FROM notes FOR UPDATE"):
            slow = asyncio.ensure_future(notes.UpdateNote(an_update(note.id)))
            await notes_database.until_waiting()

            read = await asyncio.gather(*(notes.GetNote(pb.GetNoteRequest(id=note.id)) for _ in range(20)))

            assert not slow.done()
        assert {each.etag for each in read} == {"v1"}
        assert (await slow).etag == "v2"


async def test_too_many_calls_are_refused_and_the_others_answered(notes_database: TestDatabase) -> None:
    settings = database_settings(notes_database.url, batch_max_waiting=10)
    async with notes_service(settings) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        get = pb.GetNoteRequest(id=note.id)
        with notes_database.locked("LOCK TABLE notes"):
            first = asyncio.ensure_future(notes.GetNote(get))
            await notes_database.until_waiting()
            waiting = [asyncio.ensure_future(notes.GetNote(get)) for _ in range(50)]
            await until(lambda: refused(waiting, 40))

        answers = await asyncio.gather(first, *waiting, return_exceptions=True)
        refusal = refusal_from(next(each for each in answers if isinstance(each, aio.AioRpcError)))

    assert answers.count(note) == 11
    assert (refusal.code, refusal.domain) == (StatusCode.RESOURCE_EXHAUSTED, "shop.system.v1")
    assert (refusal.reason, refusal.retry_after_s, refusal.retry_after_header) == ("OVERLOADED", 1, "1")


async def refused(calls: Sequence[asyncio.Future[Any]], number: int) -> bool:
    return sum(call.done() for call in calls) == number


async def test_calls_whose_deadline_passed_before_their_batch_change_nothing(
    notes_database: TestDatabase, author: str
) -> None:
    settings = database_settings(notes_database.url, transaction_lanes=2)
    async with notes_service(settings) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)
        ids = [(await notes.CreateNote(create_note_request(author))).id for _ in range(4)]
        with notes_database.locked("LOCK TABLE idempotency_keys"):
            stuck = [asyncio.ensure_future(archive(notes, ids[0]))]
            await notes_database.until_waiting()
            stuck.append(asyncio.ensure_future(archive(notes, ids[1])))  # not in the batch that waits already
            await notes_database.until_waiting(2)

            with pytest.raises(aio.AioRpcError) as left:
                await notes.ArchiveNote(pb.ArchiveNoteRequest(id=ids[3], request_id=new_uuid()), timeout=0.3)
        await asyncio.gather(*stuck)
        untouched = await notes.GetNote(pb.GetNoteRequest(id=ids[3]))

    assert left.value.code() is StatusCode.DEADLINE_EXCEEDED
    assert untouched.state == pb.NOTE_STATE_OPEN


async def test_as_many_notes_as_were_acknowledged_are_there(
    notes: NoteServiceStub, notes_database: TestDatabase, author: str
) -> None:
    left = iter(range(CREATES))

    async def write_some() -> list[str]:
        return [(await notes.CreateNote(create_note_request(author, request_id=new_uuid()))).id for _ in left]

    acknowledged = [note_id for some in await asyncio.gather(*(write_some() for _ in range(64))) for note_id in some]

    assert len(acknowledged) == CREATES
    require_whole(notes_database, acknowledged)


def require_whole(database: TestDatabase, acknowledged: Sequence[str]) -> None:
    """Return if these notes, and no others, are there: once, with an event and a key each."""
    wanted = sorted(acknowledged)
    assert len(set(wanted)) == len(wanted)
    for query in (
        "SELECT id::text FROM notes",
        "SELECT subject::text FROM outbox",
        "SELECT resource_id::text FROM idempotency_keys",
    ):
        assert sorted(found for (found,) in database.query(query)) == wanted, query


# The lanes themselves, below the wire.


@pytest.fixture
async def lanes(notes_database: TestDatabase) -> AsyncIterator[Database]:
    database = Database(database_settings(notes_database.url, pool_size=4, batch_max_waiting=4), name="t")
    yield database
    await database.close()


async def until_waiting(number: int) -> None:
    """Return once so much work waits for a connection."""

    async def do_so_many() -> bool:
        samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
        pools = [sample for sample in samples if sample.name == "db_client_connection_pending_requests"]
        return number in {pool.value for pool in pools}

    await until(do_so_many)


async def test_a_call_that_waits_for_a_thread_as_long_as_a_statement_may_take_is_refused(
    notes_database: TestDatabase,
) -> None:
    database = Database(database_settings(notes_database.url, pool_size=4, statement_timeout_s=0.2), name="t")
    has_begun, may_end = threading.Event(), threading.Event()

    def hold(_: Connection) -> bool:
        has_begun.set()
        return may_end.wait(10)

    try:
        running = asyncio.ensure_future(database.read(hold))
        assert await asyncio.to_thread(has_begun.wait, 10)
        with pytest.raises(Overloaded):
            await database.read(lambda _: "too late")

        may_end.set()
        assert await running
        assert await database.read(lambda _: "in time") == "in time"
    finally:
        await database.close()


async def test_calls_that_wait_for_a_thread_are_bounded(lanes: Database) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def hold(_: Connection) -> bool:
        has_begun.set()
        return may_end.wait(10)

    running = asyncio.ensure_future(lanes.read(hold))
    assert await asyncio.to_thread(has_begun.wait, 10)
    waiting = [asyncio.ensure_future(lanes.read(lambda _: "read")) for _ in range(4)]
    await until_waiting(4)

    with pytest.raises(Overloaded):
        await lanes.read(lambda _: "too much")
    waiting[0].cancel()
    await until_waiting(3)
    instead = asyncio.ensure_future(lanes.read(lambda _: "instead"))
    may_end.set()

    assert await asyncio.gather(running, *waiting[1:], instead) == [True, "read", "read", "read", "instead"]


async def test_a_read_whose_connection_is_lost_is_read_again(lanes: Database, notes_database: TestDatabase) -> None:
    attempts: list[int] = []

    async def find(fetch: Fetch, items: Sequence[int]) -> list[int]:
        attempts.append(len(items))
        [[pid]] = await fetch("SELECT pg_backend_pid()")
        notes_database.query("SELECT pg_terminate_backend(%s)", pid)
        return [answer for item in items for [answer] in await fetch("SELECT CAST(%s AS int)", item)]

    reads = lanes.batched_reads(find, name="test")

    assert await asyncio.gather(reads.submit(1), reads.submit(2)) == [1, 2]
    assert attempts == [2]


async def test_calls_of_a_failed_batch_are_run_one_by_one(lanes: Database) -> None:
    def divide(connection: Connection, items: Sequence[int]) -> list[int]:
        return [connection.execute(text("SELECT 12 / CAST(:n AS int)"), {"n": item}).scalar_one() for item in items]

    writes = lanes.batched_writes(divide, name="test", write_alone=divide)

    answers = await asyncio.gather(*(writes.submit(n) for n in (1, 0, 2, 3)), return_exceptions=True)

    assert [answers[0], answers[2], answers[3]] == [12, 6, 4]
    assert "division by zero" in str(answers[1])


async def test_a_commit_whose_answer_is_lost_is_not_repeated(lanes: Database, notes_database: TestDatabase) -> None:
    attempts: list[int] = []

    def write(connection: Connection, items: Sequence[int]) -> list[int]:
        attempts.append(len(items))
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        kill = "SELECT pg_terminate_backend(%s)"
        event.listen(connection, "commit", lambda _: notes_database.query(kill, pid))
        return list(items)

    writes = lanes.batched_writes(write, name="test", write_alone=write)

    answers = await asyncio.gather(*(writes.submit(n) for n in range(3)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {OutcomeUnknown}
    assert attempts == [3]


async def test_a_lock_timeout_is_an_unavailable_database(notes_database: TestDatabase) -> None:
    database = Database(database_settings(notes_database.url, lock_timeout_s=0.1), name="t")

    async def find(fetch: Fetch, items: Sequence[int]) -> list[Rows]:
        return [await fetch("TABLE notes")] * len(items)

    reads = database.batched_reads(find, name="test")
    with notes_database.locked("LOCK TABLE notes"):
        answers = await asyncio.gather(*(reads.submit(n) for n in range(50)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {DatabaseUnavailable}
    await database.close()
