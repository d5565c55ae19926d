"""A client that watches a stream of changes and records what it receives."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from google.rpc.status_pb2 import Status
from grpc import aio

from chassis.testing import refusal_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.testing import Refusal

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

    async def message(self) -> Any:
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
        return message

    async def change(self) -> Any:
        """Return the next change; skip heartbeats."""
        while True:
            message = await self.message()
            assert not message.HasField("end"), message
            if message.HasField("change"):
                return message.change

    async def changes(self, count: int) -> list[Any]:
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
async def recording(call: Any) -> AsyncIterator[Watch]:
    """Record the messages of the call, from its first one on; cancel it at the end of the block."""
    watch = Watch(call)
    try:
        yield watch
    finally:
        call.cancel()
