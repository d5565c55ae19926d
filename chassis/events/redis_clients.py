"""The classes of redis-py that clients are made of, some of them changed."""

from __future__ import annotations

import contextlib
import threading
import time
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from redis import Redis, RedisCluster, Sentinel
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio import Sentinel as AsyncSentinel
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool
from typing_extensions import override

# How often the Sentinels are asked for the primary beside open connections.
_ASKS_S: Final = 1.0
# Whether the call being made is repeated already, as a whole.
_IS_REPEATED: Final = ContextVar("_IS_REPEATED", default=False)


class _Cluster(RedisCluster):
    """A Cluster's client that connects at its first command, as the other clients do."""

    def __init__(self, **options: Any) -> None:
        self._options: Final = options
        self._connecting: Final = threading.RLock()
        self._is_connected = False

    @override
    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        with self._connecting:
            if not self._is_connected:
                # Before the connection is there, because connecting calls this method to load the Cluster's commands.
                self._is_connected = True
                try:
                    super().__init__(**self._options)
                except BaseException:
                    self._is_connected = False
                    raise
        return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]  # redis-py has no types there

    @override
    def close(self) -> None:
        if self._is_connected:
            super().close()


class _SentinelPool(SentinelConnectionPool):
    """Closes its connections once the Sentinels name another primary; redis-py notices that only when it connects.

    A primary that was frozen and replaced takes writes when it resumes, for some ten seconds, until a Sentinel demotes
    it. Of relays with connections to both primaries each would send again what its own primary lacks, and consumers
    would wait for events that only the other one has.
    """

    _asks_at = 0.0

    @override
    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        if time.monotonic() >= self._asks_at:
            with contextlib.suppress(RedisError):  # without an answer the open connection is the best there is
                self.get_master_address()  # type: ignore[no-untyped-call]  # redis-py has no types there
            self._asks_at = time.monotonic() + _ASKS_S
        return super().get_connection(*arguments, **options)


class _AsyncSentinelPool(AsyncSentinelConnectionPool):
    """The same for asyncio."""

    _asks_at = 0.0

    @override
    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        if time.monotonic() >= self._asks_at:
            with contextlib.suppress(RedisError):
                await self.get_master_address()  # type: ignore[no-untyped-call]  # redis-py has no types there
            self._asks_at = time.monotonic() + _ASKS_S
        return await super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]  # as above


class _OuterRetry(Retry):
    """Repeats a call as a whole, and nothing that it consists of.

    redis-py uses one Retry for a call, for connecting, and for the PING that precedes the first command of a connection
    without a password. If each of them were repeated three times, a call to a frozen server would take nine timeouts:
    longer than the 10 s after which PostgreSQL ends the relay's transaction.
    """

    @override
    def call_with_retry(self, do: Any, fail: Any, *arguments: Any, **options: Any) -> Any:
        if _IS_REPEATED.get():
            return Retry(NoBackoff(), 0, self._supported_errors).call_with_retry(do, fail, *arguments, **options)
        is_repeated = _IS_REPEATED.set(True)
        try:
            return super().call_with_retry(do, fail, *arguments, **options)
        finally:
            _IS_REPEATED.reset(is_repeated)


class _AsyncOuterRetry(AsyncRetry):
    """The same for asyncio."""

    @override
    async def call_with_retry(self, do: Any, fail: Any, *arguments: Any, **options: Any) -> Any:
        if _IS_REPEATED.get():
            once = AsyncRetry(NoBackoff(), 0, self._supported_errors)
            return await once.call_with_retry(do, fail, *arguments, **options)
        is_repeated = _IS_REPEATED.set(True)
        try:
            return await super().call_with_retry(do, fail, *arguments, **options)
        finally:
            _IS_REPEATED.reset(is_repeated)


class Classes(NamedTuple):
    """The classes of redis-py that a client is made of: the same names with and without asyncio."""

    server: Any
    sentinel: Any
    sentinel_pool: Any
    cluster: Any
    cluster_node: Any
    retry: Any


SYNC: Final = Classes(Redis, Sentinel, _SentinelPool, _Cluster, ClusterNode, _OuterRetry)
ASYNC: Final = Classes(
    AsyncRedis, AsyncSentinel, _AsyncSentinelPool, AsyncRedisCluster, AsyncClusterNode, _AsyncOuterRetry
)
