"""Replicas that are added to a name and removed from it: callers find out, and no call fails meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from chassis.client import CallPolicy, channel
from chassis.server.settings import ServerSettings
from chassis.testing import plain_channel, server_settings
from tests.integration.chassis.notes import notes_service
from tests.integration.chassis.watching import ids_in, watching, write
from tests.integration.inprocess import database_settings
from tests.support.name_server import name_server
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import create_note_request
from tests.support.notes_svc.rpc import NoteServicer
from tests.support.ports import free_port
from tests.support.scaling import AGE_S, FIRST, SECOND, call_while_replicas_come_and_go

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.databases import TestDatabase
    from tests.support.notes_svc import notes_pb2 as pb

# The default TTL of a headless service's addresses in the DNS of a Kubernetes cluster.
DNS_CACHE_S = 5


@contextlib.asynccontextmanager
async def libraries(database: TestDatabase, *, port: int, calls: Counter[str]) -> AsyncIterator[NoteServiceStub]:
    """Serve two replicas at the same port of two addresses; yield a stub of one of them.

    Args:
        database: of both.
        port: of both.
        calls: counts how often each was asked for notes.
    """

    def counting(address: str) -> type[NoteServicer]:
        class Counting(NoteServicer):
            @override
            async def FindNotes(self, request: pb.FindNotesRequest, context: Any) -> pb.FindNotesResponse:
                calls[address] += 1
                return await super().FindNotes(request, context)

        return Counting

    async with contextlib.AsyncExitStack() as running:
        for address in (FIRST, SECOND):
            replica = notes_service(
                database_settings(database.url),
                port=port,
                server=server_settings(host=address, max_connection_age_s=AGE_S),
                servicer_class=counting(address),
            )
            await running.enter_async_context(replica)
        yield NoteServiceStub(await running.enter_async_context(plain_channel(f"{SECOND}:{port}")))


async def test_a_service_calls_a_replica_that_was_added_and_leaves_one_that_was_removed(
    authors_database: TestDatabase, notes_database: TestDatabase, author: str
) -> None:
    port, calls = free_port(), Counter[str]()
    async with libraries(authors_database, port=port, calls=calls) as library, name_server(FIRST) as names:
        quoted = await library.CreateNote(create_note_request())
        target = f"dns://127.0.0.1:{names.port}/library.test:{port}"
        async with (
            notes_service(database_settings(notes_database.url), library=target) as address,
            plain_channel(address) as channel,
        ):
            notes = NoteServiceStub(channel)
            answered = await call_while_replicas_come_and_go(
                lambda: notes.CreateNote(create_note_request(author, quoted_note_id=quoted.id)),
                names=names,
                calls=calls,
            )

    assert answered == notes_database.query("SELECT count(*) FROM notes")[0][0]


async def test_a_stream_outlives_the_connections_age(notes_database: TestDatabase) -> None:
    server = server_settings(max_connection_age_s=0.2)
    settings = database_settings(notes_database.url)
    async with (
        notes_service(settings, server=server) as address,
        plain_channel(address) as channel,
        watching(channel) as watch,
    ):
        await watch.message()
        is_old_s = asyncio.get_running_loop().time() + 1
        while asyncio.get_running_loop().time() < is_old_s:  # signs of life come in between
            await watch.message()
        write(notes_database, 1)

        await watch.change()

    assert watch.told == ids_in(notes_database)


def test_a_replica_that_is_added_is_known_within_30_s() -> None:
    options = dict(channel.options_of(CallPolicy()))

    # gRPC spreads the ends of connections by a tenth.
    longest_s = ServerSettings().max_connection_age_s * 1.1 + options["grpc.dns_min_time_between_resolutions_ms"] / 1000
    assert longest_s + DNS_CACHE_S <= 30
