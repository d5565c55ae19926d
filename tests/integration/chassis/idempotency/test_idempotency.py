"""A write that is sent twice takes effect once, and both callers get the same answer."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from grpc import StatusCode
from pydantic import TypeAdapter

from chassis.database import Database
from chassis.errors import RequestIdReused
from chassis.idempotency.key import LIFETIME, IdempotencyKey
from chassis.idempotency.store import ResponseCodec, sweep_forever
from chassis.idempotency.transactions import write_once
from chassis.testing import admins_token, bearer, new_uuid, plain_channel, refusal_of, until
from tests.integration.chassis.notes import notes_service
from tests.integration.inprocess import database_settings
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy import Connection

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase


def encoded(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


async def test_a_repeated_note_is_the_first_one_again(
    notes: NoteServiceStub, notes_database: TestDatabase, author: str
) -> None:
    request = create_note_request(author, request_id=new_uuid())
    first = await notes.CreateNote(request)

    second = await notes.CreateNote(request)

    assert encoded(second) == encoded(first)
    assert notes_database.query("SELECT count(*) FROM notes") == [(1,)]
    assert notes_database.query("SELECT count(*) FROM outbox") == [(1,)]


async def test_a_repetition_gets_the_first_answer_also_when_the_resource_has_changed(
    notes: NoteServiceStub, author: str, clock: ManualClock
) -> None:
    create = create_note_request(author, request_id=new_uuid(), labels=["tea", "shop"])
    created = await notes.CreateNote(create)
    update = an_update(created.id, request_id=new_uuid())
    updated = await notes.UpdateNote(update)
    archive = pb.ArchiveNoteRequest(id=created.id, request_id=new_uuid())
    archived = await notes.ArchiveNote(archive)
    clock.advance(timedelta(hours=23))

    assert encoded(await notes.CreateNote(create)) == encoded(created)
    assert encoded(await notes.UpdateNote(update)) == encoded(updated)
    assert encoded(await notes.ArchiveNote(archive)) == encoded(archived)
    assert await notes.GetNote(pb.GetNoteRequest(id=created.id)) == archived


async def test_a_request_id_serves_one_request_only(notes: NoteServiceStub, author: str) -> None:
    request_id = new_uuid()
    await notes.CreateNote(create_note_request(author, request_id=request_id))

    other = create_note_request(author, request_id=request_id, text="Buy milk")
    refusal = await refusal_of(notes.CreateNote(other))

    assert (refusal.code, refusal.domain) == (StatusCode.ALREADY_EXISTS, "shop.system.v1")
    assert (refusal.reason, refusal.metadata) == ("REQUEST_ID_REUSED", {"requestId": request_id})


async def test_a_refused_reuse_does_not_harm_the_first_request(notes: NoteServiceStub, author: str) -> None:
    request = create_note_request(author, request_id=new_uuid())
    first = await notes.CreateNote(request)
    await refusal_of(notes.CreateNote(create_note_request(author, request_id=request.request_id, labels=["tea"])))

    assert encoded(await notes.CreateNote(request)) == encoded(first)


async def test_one_request_id_serves_one_request_of_every_method(notes: NoteServiceStub, author: str) -> None:
    request_id = new_uuid()
    note = await notes.CreateNote(create_note_request(author, request_id=request_id))

    updated = await notes.UpdateNote(an_update(note.id, request_id=request_id))
    archived = await notes.ArchiveNote(pb.ArchiveNoteRequest(id=note.id, request_id=request_id))

    assert [updated.etag, archived.etag] == ["v2", "v3"]


async def test_after_24_hours_the_request_id_is_free(notes: NoteServiceStub, author: str, clock: ManualClock) -> None:
    request = create_note_request(author, request_id=new_uuid())
    first = await notes.CreateNote(request)
    clock.advance(LIFETIME)
    assert (await notes.CreateNote(request)).id == first.id
    clock.advance(timedelta(seconds=1))
    other = create_note_request(author, request_id=request.request_id, text="Buy milk")

    second = await notes.CreateNote(other)

    assert second.id != first.id
    assert encoded(await notes.CreateNote(other)) == encoded(second)
    assert (await refusal_of(notes.CreateNote(request))).reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("header", ["idempotency-key", "x-request-id"])
async def test_a_header_is_the_key_of_a_request_without_an_id(notes: NoteServiceStub, author: str, header: str) -> None:
    metadata = ((header, new_uuid()),)

    first = await notes.CreateNote(create_note_request(author), metadata=metadata)
    again = await notes.CreateNote(create_note_request(author), metadata=metadata)
    other = await refusal_of(notes.CreateNote(create_note_request(author, text="Buy milk"), metadata=metadata))

    assert encoded(again) == encoded(first)
    assert (other.reason, other.metadata) == ("REQUEST_ID_REUSED", {"requestId": metadata[0][1]})


async def test_the_callers_key_has_precedence_over_the_edges(notes: NoteServiceStub, author: str) -> None:
    chosen, header, edge = new_uuid(), new_uuid(), new_uuid()
    by_field = create_note_request(author, request_id=chosen)
    metadata = (("idempotency-key", header), ("x-request-id", edge))

    first = await notes.CreateNote(by_field, metadata=metadata)
    second = await notes.CreateNote(create_note_request(author), metadata=metadata)
    third = await notes.CreateNote(create_note_request(author), metadata=metadata[1:])

    assert len({first.id, second.id, third.id}) == 3
    assert (await notes.CreateNote(by_field)).id == first.id
    assert (await notes.CreateNote(create_note_request(author), metadata=metadata)).id == second.id


@pytest.mark.parametrize("values", [["note-1"], [""], [new_uuid(), new_uuid()]], ids=["text", "empty", "two lines"])
async def test_an_idempotency_key_must_be_a_uuid(notes: NoteServiceStub, author: str, values: list[str]) -> None:
    metadata = tuple(("idempotency-key", value) for value in values)

    refusal = await refusal_of(notes.CreateNote(create_note_request(author), metadata=metadata))

    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert refusal.fields == ("idempotency-key",)


async def test_without_any_id_every_call_is_a_request_of_its_own(notes: NoteServiceStub, author: str) -> None:
    metadata = (("x-request-id", "not the edge's"),)

    written = [await notes.CreateNote(create_note_request(author), metadata=metadata) for _ in range(2)]

    assert written[0].id != written[1].id


async def test_40_callers_of_2_replicas_with_one_request_id_write_one_note(notes_database: TestDatabase) -> None:
    settings = database_settings(notes_database.url)
    async with (
        notes_service(settings) as one,
        notes_service(settings) as other,
        plain_channel(one) as channel_to_one,
        plain_channel(other) as channel_to_other,
    ):
        as_one_caller = bearer(admins_token())
        stubs = [NoteServiceStub(channel_to_one), NoteServiceStub(channel_to_other)]
        request = create_note_request(request_id=new_uuid())

        answers = await asyncio.gather(
            *(stubs[number % 2].CreateNote(request, metadata=as_one_caller) for number in range(40))
        )

    assert len({encoded(answer) for answer in answers}) == 1
    for table in ("notes", "outbox", "idempotency_keys"):
        assert notes_database.query(f"SELECT count(*) FROM {table}") == [(1,)]


async def test_20_callers_with_one_request_id_change_a_note_once(notes: NoteServiceStub, author: str) -> None:
    note = await notes.CreateNote(create_note_request(author))
    update = an_update(note.id, request_id=new_uuid())

    answers = await asyncio.gather(*(notes.UpdateNote(update) for _ in range(20)))

    assert len({encoded(answer) for answer in answers}) == 1
    assert (await notes.GetNote(pb.GetNoteRequest(id=note.id))).etag == "v2"


async def test_a_refused_note_leaves_its_request_id_unused(
    notes: NoteServiceStub, notes_database: TestDatabase, author: str
) -> None:
    notes_database.query("INSERT INTO known_authors VALUES (%s, 'CLOSED', now())", author)
    request_id = new_uuid()
    refused = await refusal_of(notes.CreateNote(create_note_request(author, request_id=request_id)))

    written = await notes.CreateNote(create_note_request(request_id=request_id))

    assert refused.reason == "AUTHOR_CLOSED"
    assert written.author_id != author


async def test_a_refused_change_leaves_its_request_id_unused(
    notes: NoteServiceStub, notes_database: TestDatabase, author: str
) -> None:
    note = await notes.CreateNote(create_note_request(author))
    update = an_update(note.id, etag="v2", request_id=new_uuid())
    refused = await refusal_of(notes.UpdateNote(update))

    assert refused.reason == "ETAG_MISMATCH"
    assert notes_database.query("SELECT 1 FROM idempotency_keys WHERE request_id = %s", update.request_id) == []
    await notes.UpdateNote(an_update(note.id, "Buy milk"))
    assert (await notes.UpdateNote(update)).etag == "v3"


async def test_a_repeated_note_is_answered_while_the_service_that_it_asks_is_down(
    authors_database: TestDatabase, notes_database: TestDatabase
) -> None:
    async with contextlib.AsyncExitStack() as rest:
        async with notes_service(database_settings(authors_database.url)) as library:
            settings = database_settings(notes_database.url)
            address = await rest.enter_async_context(notes_service(settings, library=library))
            stub = NoteServiceStub(await rest.enter_async_context(plain_channel(address)))
            async with plain_channel(library) as channel:
                quoted = await NoteServiceStub(channel).CreateNote(create_note_request())
            author = new_uuid()
            request = create_note_request(author, quoted_note_id=quoted.id, request_id=new_uuid())
            first = await stub.CreateNote(request)

        again = await stub.CreateNote(request)
        new = await refusal_of(stub.CreateNote(create_note_request(author, quoted_note_id=quoted.id)))
        other = create_note_request(author, quoted_note_id=quoted.id, request_id=request.request_id, text="Buy milk")
        reused = await refusal_of(stub.CreateNote(other))

    assert encoded(again) == encoded(first)
    assert new.reason == "LIBRARY_UNAVAILABLE"
    assert reused.reason == "REQUEST_ID_REUSED"


# The keys themselves, below the wire.

TEXT = ResponseCodec.of(TypeAdapter(str), resource_id=lambda _: uuid4())


@pytest.fixture
async def database(notes_database: TestDatabase) -> AsyncIterator[Database]:
    database = Database(database_settings(notes_database.url), name="test")
    yield database
    await database.close()


async def test_callers_do_not_share_request_ids(database: Database, clock: ManualClock) -> None:
    request_id = uuid4()
    of_ada = IdempotencyKey("ada", "/method", request_id, b"content", clock.now())
    of_bob = IdempotencyKey("bob", "/method", request_id, b"other content", clock.now())

    assert await database.transaction(remembering(of_ada, "for Ada")) == "for Ada"
    assert await database.transaction(remembering(of_bob, "for Bob")) == "for Bob"
    assert await database.transaction(remembering(of_ada, "something else")) == "for Ada"


async def test_a_request_id_is_reused_by_content_and_not_by_answer(database: Database, clock: ManualClock) -> None:
    key = IdempotencyKey("ada", "/method", uuid4(), b"content", clock.now())
    await database.transaction(remembering(key, "x"))
    other = replace(key, fingerprint=b"other")

    with pytest.raises(RequestIdReused):
        await database.transaction(remembering(other, "x"))


async def test_an_action_that_fails_leaves_no_key(
    database: Database, notes_database: TestDatabase, clock: ManualClock
) -> None:
    key = IdempotencyKey("ada", "/method", uuid4(), b"content", clock.now())

    def fail() -> str:
        raise LookupError

    def attempt(connection: Connection) -> str:
        return write_once(connection, key, fail, codec=TEXT)

    with pytest.raises(LookupError):
        await database.transaction(attempt)

    assert notes_database.query("SELECT count(*) FROM idempotency_keys") == [(0,)]


async def test_the_sweep_removes_expired_keys_and_no_others(
    database: Database, notes_database: TestDatabase, clock: ManualClock
) -> None:
    day_ago = clock.now() - LIFETIME
    expired = IdempotencyKey("ada", "/method", uuid4(), b"content", day_ago - timedelta(seconds=1))
    kept = IdempotencyKey("ada", "/method", uuid4(), b"content", day_ago)
    await database.transaction(remembering(expired, "x"))
    await database.transaction(remembering(kept, "x"))

    sweep = asyncio.create_task(sweep_forever(database, clock, every_s=0.01))
    await until(is_in_database({kept.request_id}, notes_database))
    sweep.cancel()

    assert await database.transaction(remembering(replace(kept, received_at=clock.now()), "y")) == "x"


async def test_the_sweep_removes_more_than_one_batch(
    database: Database, notes_database: TestDatabase, clock: ManualClock
) -> None:
    notes_database.query(
        "INSERT INTO idempotency_keys (caller, method, request_id, fingerprint, created_at)"
        " SELECT '', '/method', gen_random_uuid(), '', %s FROM generate_series(1, 2500)",
        clock.now() - LIFETIME - timedelta(seconds=1),
    )

    sweep = asyncio.create_task(sweep_forever(database, clock, every_s=0.01))
    await until(is_in_database(set(), notes_database))
    sweep.cancel()


def remembering(key: IdempotencyKey, result: str) -> Callable[[Connection], str]:
    """Return work that has this result, unless it is a repetition."""

    def work(connection: Connection) -> str:
        return write_once(connection, key, lambda: result, codec=TEXT)

    return work


def is_in_database(wanted: set[UUID], database: TestDatabase) -> Callable[[], Awaitable[bool]]:
    """Return the question whether these are the request ids that are kept."""

    async def ask() -> bool:
        rows = await asyncio.to_thread(database.query, "SELECT request_id FROM idempotency_keys")
        return {request_id for (request_id,) in rows} == wanted

    return ask
