"""Ends of a stream, with their status and resume token."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode, aio
from structlog.testing import capture_logs

from chassis.context import Role
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import (
    SIGNER,
    admins_token,
    new_uuid,
    plain_channel,
    server_settings,
    services_token,
    until,
)
from chassis.watch.settings import WatchSettings
from tests.integration.chassis.notes import notes_service
from tests.integration.chassis.watching import ids_in, watching, write
from tests.integration.inprocess import database_settings
from tests.integration.watching import NARROW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.integration.databases import TestDatabase

CHUNK = 100
"""How many events are written at a time: fewer than a buffer holds."""


@contextlib.asynccontextmanager
async def replica(
    database: TestDatabase, *, server: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[aio.Channel]:
    """Serve notes while the block runs; yield an admin's channel that takes no more than is asked for."""
    watching = WatchSettings(**{"poll_s": 0.01, "heartbeat_s": 0.1, **changes})
    settings = database_settings(database.url)
    async with (
        notes_service(settings, watching=watching, server=server_settings(**(server or {}))) as address,
        plain_channel(address) as channel,
    ):
        yield channel


async def test_a_slow_reader_is_ended_with_a_resume_token_and_other_streams_continue(
    notes_database: TestDatabase,
) -> None:
    async with (
        notes_service(
            database_settings(notes_database.url),
            watching=WatchSettings(poll_s=0.01, buffer=2 * CHUNK),
        ) as address,
        plain_channel(address) as channel,
        aio.insecure_channel(address, options=NARROW) as narrow_channel,
        watching(channel) as quick,
        watching(narrow_channel, access=admins_token()) as slow,
    ):
        await quick.message()
        await slow.message()
        for _ in range(12):  # some 270 KB
            write(notes_database, CHUNK)
            await quick.changes(CHUNK)

        refusal = await slow.end()

        assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "STREAM_TOO_SLOW")
        assert refusal.metadata == {"resumeToken": slow.token}
        assert slow.farewell == refusal.status
        written = ids_in(notes_database)
        assert quick.told == written
        assert len(slow.told) < len(written)
        async with watching(channel, token=slow.token) as again:
            await again.changes(len(written) - len(slow.told))
        assert slow.told + again.told == written


async def test_a_replica_that_stops_ends_its_streams_with_a_token_for_another(notes_database: TestDatabase) -> None:
    async with contextlib.AsyncExitStack() as running:
        settings = database_settings(notes_database.url)
        address = await running.enter_async_context(notes_service(settings))
        async with plain_channel(address) as channel, watching(channel) as watch:
            await watch.message()
            write(notes_database, 1)
            await watch.change()
            stopping = asyncio.create_task(running.aclose())
            refusal = await watch.end()
            await stopping

    write(notes_database, 1)
    async with (
        replica(notes_database) as channel,
        watching(channel, token=watch.token) as next_one,
    ):
        await next_one.change()
    assert (refusal.code, refusal.reason, refusal.retry_after_s) == (StatusCode.UNAVAILABLE, "SERVER_STOPPING", 1)
    assert refusal.metadata == {"resumeToken": watch.token}
    assert watch.farewell == refusal.status
    assert watch.told + next_one.told == ids_in(notes_database)


async def test_a_stream_ends_with_the_token_it_was_opened_with(notes_database: TestDatabase) -> None:
    async with replica(notes_database) as channel:
        # For three seconds more: services allow for clocks that are five apart.
        token = SIGNER.token(exp=int(time.time()) - 2)
        async with watching(channel, access=token) as watch:
            await watch.message()
            refusal = await watch.end()

    assert (refusal.code, refusal.reason) == (StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert watch.farewell == refusal.status


async def test_a_stream_lasts_no_longer_than_the_service_lets_it(notes_database: TestDatabase) -> None:
    brief = {"max_stream_s": 0.3}

    async with replica(notes_database, server=brief) as channel, watching(channel) as watch:
        await watch.message()
        refusal = await watch.end()

    assert (refusal.code, refusal.reason) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_stream_says_why_it_ends_even_if_its_time_is_up_while_it_sends(notes_database: TestDatabase) -> None:
    brief = {"max_stream_s": 1}
    streams = 20

    async with (
        replica(notes_database, server=brief, heartbeat_s=0.0005) as channel,
        contextlib.AsyncExitStack() as watches,
    ):
        watching_all = [await watches.enter_async_context(watching(channel)) for _ in range(streams)]
        refusals = await asyncio.gather(*(watch.end() for watch in watching_all))

    assert [refusal.reason for refusal in refusals] == ["DEADLINE_EXCEEDED"] * streams
    # Before its first message a stream's status is enough.
    begun = [
        (watch.farewell, refusal.status) for watch, refusal in zip(watching_all, refusals, strict=True) if watch.token
    ]
    assert [farewell for farewell, _ in begun] == [status for _, status in begun]
    assert begun


async def test_a_token_of_which_nothing_is_known_is_refused(notes_database: TestDatabase) -> None:
    async with (
        replica(notes_database) as channel,
        watching(channel, token=new_uuid()) as watch,
    ):
        refusal = await watch.end()

    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "RESUME_TOKEN_EXPIRED")
    assert watch.token == ""


@pytest.mark.parametrize("limits", [{"max_watchers": 2}, {"max_of_one_caller": 2}], ids=str)
@pytest.mark.parametrize("roles", [(Role.USER,), (Role.USER, Role.SUPPORT), (Role.USER, Role.ADMIN)], ids=str)
async def test_the_number_of_streams_is_bounded_and_an_ended_one_frees_its_place(
    notes_database: TestDatabase, limits: dict[str, int], roles: tuple[Role, ...]
) -> None:
    me = SIGNER.token(roles=roles)

    async with (
        replica(notes_database, **limits) as channel,
        watching(channel, access=me) as first,
    ):
        await first.message()
        async with watching(channel, access=me) as second:
            await second.message()
            async with watching(channel, access=me) as third:  # which could else be there before the second
                refusal = await third.end()

        async def there_is_room() -> bool:
            async with watching(channel, access=me) as fourth:
                message = await fourth.call.read()
                return message is not aio.EOF and not message.HasField("end")

        await until(lambda: _succeeds(there_is_room))
    assert (refusal.code, refusal.reason, refusal.retry_after_s) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", 1)


async def test_the_streams_of_a_service_are_not_counted_as_those_of_one_user(notes_database: TestDatabase) -> None:
    service = services_token()

    async with replica(notes_database, max_of_one_caller=1) as channel, contextlib.AsyncExitStack() as streams:
        watches = [await streams.enter_async_context(watching(channel, access=service)) for _ in range(3)]

        for watch in watches:
            await watch.message()


async def _succeeds(attempt: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await attempt()
    except aio.AioRpcError:
        return False


async def test_open_streams_are_counted_and_so_are_those_that_have_ended(notes_database: TestDatabase) -> None:
    method = {"rpc_method": "notes.v1.NoteService/WatchNotes"}

    def open_ones() -> float | None:
        return REGISTRY.get_sample_value("shop_streams_active", method)

    def cancelled() -> float:
        labels = {**method, "rpc_response_status_code": "CANCELLED"}
        return REGISTRY.get_sample_value("shop_streams_ended_total", labels) or 0

    before = cancelled()
    async with replica(notes_database) as channel:
        with capture_logs() as lines:
            async with watching(channel) as watch:
                await watch.message()
                assert open_ones() == 1

            async def has_left() -> bool:
                return cancelled() == before + 1

            await until(has_left)

    assert open_ones() == 0
    [line] = [each for each in lines if each["event"] == "rpc.handled" and each["method"].endswith("/WatchNotes")]
    assert (line["code"], line["messages"]) == ("CANCELLED", 1)


async def test_while_polls_fail_no_heartbeat_is_sent(notes_database: TestDatabase) -> None:
    async with (
        replica(notes_database, heartbeat_s=0.05) as channel,
        watching(channel) as watch,
    ):
        await watch.message()
        with capture_logs() as lines:
            notes_database.query("ALTER TABLE outbox RENAME TO outbox_away")

            async def has_noticed() -> bool:
                return any(line["event"] == "watchers.waiting" for line in lines)

            await until(has_noticed)
            is_silent = await watch.is_silent(for_s=0.5)
            async with watching(channel) as late:
                refusal = await late.end()
            notes_database.query("ALTER TABLE outbox_away RENAME TO outbox")
        write(notes_database, 1)
        await watch.change()

    assert is_silent
    assert refusal.reason == "INTERNAL"  # a table that is missing is a defect; a database that is down is not
    assert watch.told == ids_in(notes_database)
