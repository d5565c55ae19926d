"""A replica makes few pages at a time, lets some calls wait for theirs, and refuses more at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from grpc import StatusCode, aio

from chassis.server import method_wrapper
from chassis.server.method_wrapper import LISTS_AT_ONCE, MAX_LISTS_WAITING
from chassis.testing import plain_channel, refusal_from, until
from tests.integration.chassis.notes import notes_service
from tests.integration.inprocess import database_settings
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub

if TYPE_CHECKING:
    import pytest

    from tests.integration.databases import TestDatabase

_TOO_MANY = 3


async def test_lists_run_four_at_a_time_and_a_hundred_of_them_wait(
    notes_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method_wrapper, "MAX_LIST_WAIT_S", 60)
    settings = database_settings(notes_database.url, lock_timeout_s=20, statement_timeout_s=20)
    async with notes_service(settings) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)
        with notes_database.locked("LOCK TABLE notes"):
            left = [
                notes.ListNotes(pb.ListNotesRequest()) for _ in range(LISTS_AT_ONCE + MAX_LISTS_WAITING + _TOO_MANY)
            ]

            async def too_many_are_refused() -> bool:
                return sum(call.done() for call in left) == _TOO_MANY

            await until(too_many_are_refused)
            refusals = [refusal_from(cast("aio.AioRpcError", await failure(call))) for call in left if call.done()]
            # Callers who leave make room for as many.
            for call in left:
                call.cancel()
            stay = [notes.ListNotes(pb.ListNotesRequest()) for _ in range(MAX_LISTS_WAITING)]
        answers = await asyncio.gather(*stay)

    assert {(refusal.code, refusal.reason, refusal.retry_after_s) for refusal in refusals} == {
        (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", 1)
    }
    assert len(answers) == MAX_LISTS_WAITING


async def test_a_list_whose_turn_does_not_come_in_time_is_refused(notes_database: TestDatabase) -> None:
    settings = database_settings(notes_database.url, lock_timeout_s=20, statement_timeout_s=20)
    async with notes_service(settings) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)
        with notes_database.locked("LOCK TABLE notes"):
            calls = [notes.ListNotes(pb.ListNotesRequest()) for _ in range(LISTS_AT_ONCE + 1)]
            first, _ = await asyncio.wait(
                [asyncio.ensure_future(failure(call)) for call in calls],
                timeout=15,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for call in calls:
                call.cancel()

    [refusal] = [refusal_from(cast("aio.AioRpcError", each.result())) for each in first]
    assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")


async def failure(call: aio.UnaryUnaryCall[pb.ListNotesRequest, pb.ListNotesResponse]) -> BaseException:
    [error] = await asyncio.gather(call, return_exceptions=True)
    assert isinstance(error, aio.AioRpcError)
    return error
