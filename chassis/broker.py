"""Redis, which carries the events between the services, and its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Self

from pydantic import Field, RedisDsn
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from typing_extensions import override

if TYPE_CHECKING:
    from redis.backoff import AbstractBackoff

BrokerDown: Final = RedisError
"""Redis does not answer, or not as it should."""

FIELD: Final = "event"
"""The field of an entry that holds the event: a CloudEvent as JSON."""
AFTER: Final = "after"
"""The field of an entry that names the entry before it, so that a reader sees whether one is missing in between."""


class EntryId(NamedTuple):
    """The id of an entry of a stream. Ids only grow: also after Redis has lost entries."""

    ms: int
    number: int

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Return the id; that before all entries for None."""
        ms, _, number = (text or "0-0").partition("-")
        return cls(int(ms), int(number))

    @override
    def __str__(self) -> str:
        """Return the id as Redis writes it."""
        return f"{self.ms}-{self.number}"


START: Final = EntryId(0, 0)
"""Before every entry."""


class BrokerSettings(BaseSettings):
    """The Redis that carries the events."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="REDIS_")

    url: RedisDsn
    # Inside one data centre; who waits longer waits for a fault, and events wait safely in the outbox.
    timeout_s: Annotated[float, Field(ge=1, le=30)] = 2


def stream_of(resource: str) -> str:
    """Return the stream of the events of a resource: `user`, `order`."""
    return f"shop:events:{resource}"


def watermark_of(stream: str) -> str:
    """Return the key of a time: every change that was committed before has its event in the stream."""
    return f"{stream}:as_of"


def watermark_entry_of(stream: str) -> str:
    """Return the key of an entry id: the events of those changes are in the stream up to this entry."""
    return f"{stream}:as_of:entry"


def connect(settings: BrokerSettings) -> Redis:
    """Return a client; it connects when it is used, and anew when a connection is lost."""
    client: Redis = Redis.from_url(str(settings.url), retry=Retry(_backoff(), 2), **_options(settings))
    return client


def connect_async(settings: BrokerSettings) -> AsyncRedis:
    """Return the same for asyncio."""
    client: AsyncRedis = AsyncRedis.from_url(str(settings.url), retry=AsyncRetry(_backoff(), 2), **_options(settings))
    return client


def _backoff() -> AbstractBackoff:
    return ExponentialBackoff(cap=0.2, base=0.05)


def _options(settings: BrokerSettings) -> dict[str, Any]:
    return {
        "decode_responses": True,
        "socket_connect_timeout": settings.timeout_s,
        "socket_timeout": settings.timeout_s,
        # A connection that was idle may be dead; so it is asked before it is used.
        "health_check_interval": 30,
    }
