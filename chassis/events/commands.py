"""The event commands of a service: `relay`, `consume`, `events dlq list | requeue`, `events replay`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from chassis import telemetry
from chassis.database import Database
from chassis.database.settings import DatabaseSettings
from chassis.errors import StartupError
from chassis.events import inbox, redis_streams
from chassis.events.consumer import Consumer, ConsumerSettings
from chassis.events.consumer_group import ConsumerGroup
from chassis.events.processor import title
from chassis.events.recovery import publish_again
from chassis.events.redis_streams import BrokerDown, BrokerSettings, stream_of
from chassis.events.relay import Relay, RelaySettings
from chassis.runtime.worker import work
from chassis.settings import load

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable

    from chassis.events.inbox import DeadLetter
    from chassis.events.processor import Handle
    from chassis.telemetry.settings import TelemetrySettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCommands:
    """The commands of one service.

    Attributes:
        telemetry: loads the settings that name the service.
        publishes: the resource whose events it publishes: `order`.
        reads: the resource whose events it reads: `user`.
        handle: the effect of the events that it reads.
        parts: other background work of its consumer; each ends soon after the event that it is given is set.
    """

    telemetry: Callable[[], TelemetrySettings]
    publishes: str
    reads: str
    handle: Handle
    parts: Callable[[Database], list[Callable[[asyncio.Event], Awaitable[None]]]] = lambda _database: []

    @property
    def commands(self) -> dict[str, Callable[..., Awaitable[None]]]:
        """The commands, as `chassis.runtime.cli` takes them."""
        return {
            "relay": self.relay,
            "consume": self.consume,
            "events dlq list": self.list_dead_letters,
            "events dlq requeue": self.requeue_dead_letters,
            "events replay": self.replay,
        }

    async def relay(self) -> None:
        """Publish the service's events until SIGTERM or SIGINT."""
        async with self._running("relay") as (database, name):
            with redis_streams.connect(load(BrokerSettings)) as client:
                settings = load(RelaySettings)
                relay = Relay(database, client, resource=self.publishes, source=f"/{name}", settings=settings)
                await work("relay", relay.run, relay.sweep)

    async def consume(self) -> None:
        """Let the other service's events take effect until SIGTERM or SIGINT."""
        async with self._running("consume") as (database, name), self._group(name) as group:
            consumer = Consumer(database, group, self.handle, settings=load(ConsumerSettings))
            await work("consumer", consumer.run, *self.parts(database))

    async def list_dead_letters(self) -> None:
        """List the events that could not take effect: when they were given up, what they are, why."""
        for letter, died_at in await self._dead_letters():
            why = f"{letter.reason} after {letter.attempts} attempts"
            print(f"{died_at.isoformat()}  {title(letter.event)}  {why}")  # noqa: T201  the answer

    async def requeue_dead_letters(self) -> None:
        """Try the events that could not take effect once more, in the order of their sequences."""
        async with self._group(self.telemetry().service_name) as group:
            letters = [letter for letter, _ in await self._dead_letters()]
            for letter in sorted(letters, key=lambda each: each.sequence):
                if not await _answered(group.send_again(letter.event)):
                    raise StartupError("Redis has lost its stream: try again when the relay has published it anew")
        print(f"{len(letters)} events are tried again")  # noqa: T201  the answer

    async def _dead_letters(self) -> list[tuple[DeadLetter, datetime]]:
        async with self._database(self.telemetry().service_name) as database:
            return await database.read(lambda connection: inbox.dead_letters(connection, stream_of(self.reads)))

    async def replay(self, *, since: str) -> None:
        """Publish this service's events since a time once more, such as 2026-11-25T18:00:00Z."""
        try:
            moment = datetime.fromisoformat(since)
        except ValueError:
            raise StartupError("--since must look like 2026-11-25T18:00:00Z") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        async with self._database(self.telemetry().service_name) as database:
            count = await publish_again(database, since=moment)
        print(f"{count} events are published again")  # noqa: T201  the answer

    @contextlib.asynccontextmanager
    async def _running(self, command: str) -> AsyncIterator[tuple[Database, str]]:
        settings = self.telemetry()
        name = settings.service_name
        with telemetry.running(settings, command=command):
            async with self._database(name) as database:
                yield database, name

    @staticmethod
    @contextlib.asynccontextmanager
    async def _database(name: str) -> AsyncIterator[Database]:
        database = Database(load(DatabaseSettings), name=name)
        try:
            yield database
        finally:
            await database.close()

    @contextlib.asynccontextmanager
    async def _group(self, name: str) -> AsyncIterator[ConsumerGroup]:
        async with redis_streams.connect_async(load(BrokerSettings)) as client:
            yield ConsumerGroup(client, stream=stream_of(self.reads), group=name)


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except BrokerDown as error:
        raise StartupError(f"Redis does not answer: {error}") from error
