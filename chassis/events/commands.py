"""The commands of a service about events: `worker`, `events dlq list | requeue`, `events replay`.

A worker is one process that runs the service's relay and a consumer of each stream that it reads. They share the
process and nothing else: each waits for Redis and for the database by itself. A defect in one of them ends the process
with its error.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

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
from chassis.service import service_of
from chassis.settings import load
from chassis.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from sqlalchemy import Connection

    from chassis.events.inbox import DeadLetter
    from chassis.events.processor import Handle
    from chassis.runtime.cli import Command
    from chassis.runtime.worker import Part

    DatabasePart = Callable[[Database, asyncio.Event], Awaitable[None]]

_STREAM_LOST: Final = "Redis has lost its stream: try again when the relay has published it anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCommands:
    """The commands of one service: a worker, and what operators do about events. Use of().

    Attributes:
        name: of the service, in its events and of its group of consumers. Not SERVICE_NAME, which may change: the group
            of the old name would keep the stream from being trimmed.
        publishes: the resource whose events it publishes: `order`; empty if it publishes none.
        reads: the effect of the events of each resource that it reads, by the resource: `user`.
        parts: other background work of the worker, by the name that errors show. Each needs one connection at a time,
            and ends soon after its event is set.
    """

    name: str
    publishes: str = ""
    reads: Mapping[str, Handle] = field(default_factory=dict)
    parts: Mapping[str, DatabasePart] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        package: str,
        *,
        handle: Mapping[str, Handle] = MappingProxyType({}),
        parts: Mapping[str, DatabasePart] = MappingProxyType({}),
    ) -> Self:
        """Return the commands of the service in this package, which publishes and reads what its service.toml says.

        `handle` is the effect of the events of each resource that it reads, by the resource: `user`.

        Raises:
            ValueError: a resource is read without an effect, or there is an effect of one that is not read.
        """
        service = service_of(package)
        if handle.keys() != {*service.reads}:
            expected, found = (", ".join(sorted(each)) or "none" for each in (service.reads, handle))
            raise ValueError(f"{service.file}: reads: {expected}; the effects that worker.py gives are of: {found}")
        return cls(name=service.name, publishes=service.publishes, reads=handle, parts=parts)

    @property
    def commands(self) -> dict[str, Command]:
        """The commands that the service has a use for, as `chassis.runtime.cli` takes them."""
        found: dict[str, Command] = {"worker": self.work}
        if self.reads:
            found |= {"events dlq list": self.list_dead_letters, "events dlq requeue": self.requeue_dead_letters}
        if self.publishes:
            found["events replay"] = self.replay
        return found

    @property
    def part_count(self) -> int:
        """How many parts a worker has, each with a connection to the database."""
        return 2 * bool(self.publishes) + len(self.reads) + len(self.parts)

    async def work(self) -> None:
        """Publish the service's events and apply those of other services, until SIGTERM or SIGINT."""
        settings, broker = load(TelemetrySettings), load(BrokerSettings)
        with telemetry.running(settings, command="worker"):
            async with self._database() as database, contextlib.AsyncExitStack() as stack:
                parts: dict[str, Part] = {name: partial(part, database) for name, part in self.parts.items()}
                if self.publishes:
                    client = stack.enter_context(redis_streams.connect(broker))
                    relay = Relay(
                        database, client, resource=self.publishes, source=f"/{self.name}", settings=load(RelaySettings)
                    )
                    parts |= {"relay": relay.run, "relay sweep": relay.sweep}
                for resource, handle in self.reads.items():
                    group = await stack.enter_async_context(_group(self.name, broker, resource))
                    consumer = Consumer(database, group, handle, settings=load(ConsumerSettings))
                    parts["consumer" if len(self.reads) == 1 else f"consumer of {resource}"] = consumer.run
                await work(parts)

    async def list_dead_letters(self) -> None:
        """List the events that could not take effect: when they were given up, what they are, why."""
        found = [letter for letters in (await self._dead_letters()).values() for letter in letters]
        for letter, died_at in sorted(found, key=itemgetter(1)):
            why = f"{letter.reason} after {letter.attempts} attempts"
            print(f"{died_at.isoformat()}  {title(letter.event)}  {why}")  # noqa: T201  the answer

    async def requeue_dead_letters(self) -> None:
        """Try the events that could not take effect once more, in the order of their sequences."""
        broker = load(BrokerSettings)
        count = 0
        dead_letters = await self._dead_letters()
        try:
            for resource, found in dead_letters.items():
                async with _group(self.name, broker, resource) as group:
                    for letter in sorted((letter for letter, _ in found), key=lambda each: each.sequence):
                        if not await group.send_again(letter.event):
                            raise StartupError(_STREAM_LOST)
                        count += 1
        except BrokerDown as error:
            raise StartupError(f"Redis does not answer: {error}") from error
        print(f"{count} events are tried again")  # noqa: T201  the answer

    async def _dead_letters(self) -> dict[str, list[tuple[DeadLetter, datetime]]]:
        """Return the dead letters of each resource and when each was given up, oldest first."""

        def find(connection: Connection) -> dict[str, list[tuple[DeadLetter, datetime]]]:
            return {resource: inbox.dead_letters(connection, stream_of(resource)) for resource in self.reads}

        async with self._database() as database:
            return await database.read(find)

    async def replay(self, *, since: str) -> None:
        """Publish this service's events since a time once more, such as 2026-11-25T18:00:00Z."""
        try:
            moment = datetime.fromisoformat(since)
        except ValueError:
            raise StartupError("--since must look like 2026-11-25T18:00:00Z") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        async with self._database() as database:
            count = await publish_again(database, since=moment)
        print(f"{count} events are published again")  # noqa: T201  the answer

    @contextlib.asynccontextmanager
    async def _database(self) -> AsyncIterator[Database]:
        # A connection for each part: none waits for one that another holds while Redis or a lock keeps it waiting.
        database = Database(load(DatabaseSettings).for_parts(self.part_count), name=self.name)
        try:
            yield database
        finally:
            await database.close()


@contextlib.asynccontextmanager
async def _group(name: str, broker: BrokerSettings, resource: str) -> AsyncIterator[ConsumerGroup]:
    # A client for each: none waits for a connection that another holds.
    async with redis_streams.connect_async(broker) as client:
        yield ConsumerGroup(client, stream=stream_of(resource), group=name)
