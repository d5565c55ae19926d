"""The commands of a service about events: `worker`, `events dlq list | requeue`, `events replay`.

A worker is one process that runs the service's relay and its consumer. They share the process and nothing else: each
waits for Redis and for the database by itself. A defect in one of them ends the process with its error.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
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
from chassis.service import service_of
from chassis.settings import load
from chassis.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from typing import Self

    from chassis.events.inbox import DeadLetter
    from chassis.events.processor import Handle
    from chassis.runtime.worker import Part

    DatabasePart = Callable[[Database, asyncio.Event], Awaitable[None]]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCommands:
    """The commands of one service: a worker, and what operators do about events. Use of().

    Attributes:
        publishes: the resource whose events it publishes: `order`; empty if it publishes none.
        reads: the resource whose events it reads: `user`; empty if it reads none.
        handle: the effect of the events that it reads.
        parts: other background work of the worker, by the name that errors show. Each needs one connection at a time,
            and ends soon after its event is set.

    Raises:
        ValueError: events are read without an effect, or there is an effect without events.
    """

    publishes: str = ""
    reads: str = ""
    handle: Handle | None = None
    parts: Mapping[str, DatabasePart] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that what is read has an effect."""
        if bool(self.reads) != bool(self.handle):
            raise ValueError("reads and handle: give both or neither")

    @classmethod
    def of(
        cls, package: str, *, handle: Handle | None = None, parts: Mapping[str, DatabasePart] = MappingProxyType({})
    ) -> Self:
        """Return the commands of the service in this package, which publishes and reads what its service.toml says.

        Raises:
            ValueError: events are read without an effect, or there is an effect without events.
        """
        service = service_of(package)
        if len(service.reads) > 1:
            raise ValueError(f"{service.file}: reads: a worker reads the events of one resource")
        return cls(publishes=service.publishes, reads="".join(service.reads), handle=handle, parts=parts)

    @property
    def commands(self) -> dict[str, Callable[..., Awaitable[None]]]:
        """The commands that the service has a use for, as `chassis.runtime.cli` takes them."""
        found: dict[str, Callable[..., Awaitable[None]]] = {"worker": self.work}
        if self.reads:
            found |= {"events dlq list": self.list_dead_letters, "events dlq requeue": self.requeue_dead_letters}
        if self.publishes:
            found["events replay"] = self.replay
        return found

    @property
    def part_count(self) -> int:
        """How many parts a worker has, each with a connection to the database."""
        return 2 * bool(self.publishes) + bool(self.reads) + len(self.parts)

    async def work(self) -> None:
        """Publish the service's events and apply those of other services, until SIGTERM or SIGINT."""
        settings, broker = load(TelemetrySettings), load(BrokerSettings)
        name = settings.service_name
        with telemetry.running(settings, command="worker"):
            async with self._database(name) as database, contextlib.AsyncExitStack() as stack:
                parts: dict[str, Part] = {name: partial(part, database) for name, part in self.parts.items()}
                if self.publishes:
                    client = stack.enter_context(redis_streams.connect(broker))
                    relay = Relay(
                        database, client, resource=self.publishes, source=f"/{name}", settings=load(RelaySettings)
                    )
                    parts |= {"relay": relay.run, "relay sweep": relay.sweep}
                if self.handle:
                    group = await stack.enter_async_context(self._group(name, broker))
                    consumer = Consumer(database, group, self.handle, settings=load(ConsumerSettings))
                    parts["consumer"] = consumer.run
                await work(parts)

    async def list_dead_letters(self) -> None:
        """List the events that could not take effect: when they were given up, what they are, why."""
        for letter, died_at in await self._dead_letters():
            why = f"{letter.reason} after {letter.attempts} attempts"
            print(f"{died_at.isoformat()}  {title(letter.event)}  {why}")  # noqa: T201  the answer

    async def requeue_dead_letters(self) -> None:
        """Try the events that could not take effect once more, in the order of their sequences."""
        async with self._group(load(TelemetrySettings).service_name, load(BrokerSettings)) as group:
            letters = [letter for letter, _ in await self._dead_letters()]
            for letter in sorted(letters, key=lambda each: each.sequence):
                if not await _answered(group.send_again(letter.event)):
                    raise StartupError("Redis has lost its stream: try again when the relay has published it anew")
        print(f"{len(letters)} events are tried again")  # noqa: T201  the answer

    async def _dead_letters(self) -> list[tuple[DeadLetter, datetime]]:
        async with self._database(load(TelemetrySettings).service_name) as database:
            return await database.read(lambda connection: inbox.dead_letters(connection, stream_of(self.reads)))

    async def replay(self, *, since: str) -> None:
        """Publish this service's events since a time once more, such as 2026-11-25T18:00:00Z."""
        try:
            moment = datetime.fromisoformat(since)
        except ValueError:
            raise StartupError("--since must look like 2026-11-25T18:00:00Z") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        async with self._database(load(TelemetrySettings).service_name) as database:
            count = await publish_again(database, since=moment)
        print(f"{count} events are published again")  # noqa: T201  the answer

    @contextlib.asynccontextmanager
    async def _database(self, name: str) -> AsyncIterator[Database]:
        # A connection for each part: none waits for one that another holds while Redis or a lock keeps it waiting.
        database = Database(load(DatabaseSettings).for_parts(self.part_count), name=name)
        try:
            yield database
        finally:
            await database.close()

    @contextlib.asynccontextmanager
    async def _group(self, name: str, broker: BrokerSettings) -> AsyncIterator[ConsumerGroup]:
        async with redis_streams.connect_async(broker) as client:
            yield ConsumerGroup(client, stream=stream_of(self.reads), group=name)


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except BrokerDown as error:
        raise StartupError(f"Redis does not answer: {error}") from error
