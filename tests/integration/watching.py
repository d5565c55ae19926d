"""A client that watches orders and records what it receives."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

from google.rpc.status_pb2 import Status
from grpc import aio
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.testing import bearer, refusal_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shop.order.v1.order_pb2 import OrderChange

    from chassis.testing import Refusal
    from tests.integration.conftest import TestDatabase

_PATIENCE_S: Final = 20

# Options of a channel with 64 KiB on their way, rather than as much as the line holds.
NARROW: Final = [("grpc.http2.bdp_probe", 0)]


class Watch:
    """One stream.

    Attributes:
        token: the last resume token that came.
        told: the ids of all changes that came.
        tokens: every resume token that came, and how many changes had come then.
        farewell: the status that the last message told of, if it did.
    """

    def __init__(self, call: Any) -> None:
        self.call = call
        self.token = ""
        self.told: list[str] = []
        self.tokens: list[tuple[str, int]] = []
        self._reading: asyncio.Future[Any] | None = None
        self.farewell = Status()

    async def message(self) -> pb.WatchOrdersResponse:
        """Return the next message."""
        # Kept if it is given up: a read that is cancelled ends the call.
        self._reading = self._reading or asyncio.ensure_future(self.call.read())
        async with asyncio.timeout(_PATIENCE_S):
            message = await asyncio.shield(self._reading)
        self._reading = None
        assert message is not aio.EOF, "the stream has ended"
        self.token = message.resume_token or self.token
        if message.HasField("change"):
            self.told.append(message.change.id)
        if message.resume_token:
            self.tokens.append((message.resume_token, len(self.told)))
        return cast("pb.WatchOrdersResponse", message)

    async def change(self) -> OrderChange:
        """Return the next change; skip heartbeats."""
        while True:
            message = await self.message()
            assert not message.HasField("end"), message
            if message.HasField("change"):
                return message.change

    async def changes(self, count: int) -> list[OrderChange]:
        """Return the next changes."""
        return [await self.change() for _ in range(count)]

    async def passes(self, event_id: str) -> None:
        """Return once its token is this event's: whatever came before the event has come, or never will."""
        while self.token != event_id:
            assert not (await self.message()).HasField("end")

    async def read_on(self) -> None:
        """Read until cancelled."""
        while True:
            await self.message()

    async def is_silent(self, *, for_s: float) -> bool:
        """Return True after this time without a message; False after a hundred messages."""
        for _ in range(100):
            try:
                async with asyncio.timeout(for_s):
                    await self.message()
            except TimeoutError:
                return True
        return False

    async def end(self) -> Refusal:
        """Return why the stream ends, once everything before has been read."""
        try:
            while True:
                self.farewell = (await self.message()).end
        except aio.AioRpcError as error:
            return refusal_from(error)


@contextlib.asynccontextmanager
async def watching(
    channel: aio.Channel, *, token: str = "", access: str = "", user_id: str = ""
) -> AsyncIterator[Watch]:
    """Watch while the block runs, from its beginning on; with an access token, as its user."""
    request = pb.WatchOrdersRequest(resume_token=token, user_id=user_id)
    call = OrderServiceStub(channel).WatchOrders(request, metadata=bearer(access) if access else ())
    watch = Watch(call)
    try:
        yield watch
    finally:
        call.cancel()


def seen(changes: Sequence[OrderChange]) -> list[tuple[str, str]]:
    """Return which version of which order each of them told of."""
    return [(change.order_id, change.etag) for change in changes]


INSERT: Final = """
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    SELECT gen_random_uuid(), 'order.created', gen_random_uuid(), 1, '{"userId": "ada"}', '', now()
    FROM generate_series(1, %s)
"""


def write(database: TestDatabase, count: int) -> None:
    """Commit events of new orders."""
    database.query(INSERT, count)


def ids_in(database: TestDatabase) -> list[str]:
    return [str(row[0]) for row in database.query("SELECT id FROM outbox ORDER BY transaction, position")]
