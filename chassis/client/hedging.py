"""Reads that are sent to a second replica when the first one does not answer. Writes never are."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.api.annotations_pb2 import http  # its stubs break those of gRPC
from google.protobuf import descriptor_pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# One more than the replicas of the smallest system: while others call too, the second try can meet the first's replica.
_TRIES: Final = 3

SICK: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        # From a server that is forced to stop. A caller that gives up gets an asyncio.CancelledError instead.
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""The statuses that say something about the server, rather than about the call."""


@functools.cache
def is_read(method: str | bytes) -> bool:
    """Return whether the contract binds the rpc of this path to GET, and it has one answer: it may be sent twice.

    An rpc of which this process has no stubs is none.
    """
    service, _, name = (method.decode() if isinstance(method, bytes) else method).strip("/").partition("/")
    try:
        rpc = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
    except KeyError:
        return False
    return not rpc.server_streaming and bool(rpc.GetOptions().Extensions[http].get)


async def hedged(send: Callable[[float], Awaitable[Any]], *, timeout_s: float, after_s: float) -> Any:
    """Return the call that was answered first; if none was, the one that failed last. The others are cancelled.

    A replica that hangs takes calls and is silent. round_robin has the next try go to the next replica.

    Args:
        send: begins one try, with the seconds that it may take.
        timeout_s: what all tries may take together.
        after_s: how long a try may be silent before the next one begins.
    """
    deadline = time.monotonic() + timeout_s
    tries: dict[asyncio.Future[grpc.StatusCode], Any] = {}
    try:
        for number in range(1, _TRIES + 1):
            call = await send(max(deadline - time.monotonic(), 0))
            tries[asyncio.ensure_future(call.code())] = call
            answered = await _first_answer(tries, within_s=after_s if number < _TRIES else None)
            if answered is not None:
                return answered
    finally:
        for code, call in tries.items():
            code.cancel()
            call.cancel()  # does nothing to the one that has ended


async def _first_answer(tries: dict[asyncio.Future[grpc.StatusCode], Any], *, within_s: float | None) -> Any:
    """Return the first try that ends well, or the last one if none does; None if that is not known in time."""
    loop = asyncio.get_running_loop()
    ends_at = None if within_s is None else loop.time() + within_s
    while running := [code for code in tries if not code.done()]:
        left_s = None if ends_at is None else max(ends_at - loop.time(), 0)
        ended, _ = await asyncio.wait(running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            return None
        for code in ended:
            if code.result() not in SICK or all(each.done() for each in tries):
                return tries[code]
    raise AssertionError("every try has ended, and none was returned")
