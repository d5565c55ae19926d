"""Hedging: a read without an answer is sent to the next replica too. Writes are never hedged."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any, Final

from google.api.annotations_pb2 import http  # its stubs break those of gRPC
from google.protobuf import descriptor_pool

from chassis.client.errors import DEPENDENCY_FAILURES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc
    from google.protobuf.descriptor import MethodDescriptor

# One more than the replicas of the smallest system: round robin counts the calls of others too, so that the second try
# can reach the same replica as the first.
_TRIES: Final = 3


def rpc_of(method: str | bytes) -> MethodDescriptor | None:
    """Return the rpc of this path; None if its stubs are not imported in this process."""
    path = method.decode() if isinstance(method, bytes) else method
    try:
        return descriptor_pool.Default().FindMethodByName(path.strip("/").replace("/", "."))
    except KeyError:
        return None


@functools.cache
def is_read(method: str | bytes) -> bool:
    """Return whether the rpc of this path is unary and bound to GET in the contract, so that it may be sent twice.

    False for an rpc whose stubs are not imported in this process.
    """
    rpc = rpc_of(method)
    return rpc is not None and not rpc.server_streaming and bool(rpc.GetOptions().Extensions[http].get)


async def hedged(send: Callable[[float], Awaitable[Any]], *, timeout_s: float, after_s: float) -> Any:
    """Return the call that was answered first, or the last one if all tries fail; cancel the others.

    A replica that hangs accepts calls and does not answer. The channel's round robin sends the next try to the next
    replica.

    Args:
        send: starts one try, with its timeout in seconds.
        timeout_s: the timeout of all tries together.
        after_s: after this time without an answer the next try starts.
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
            call.cancel()  # has no effect on a call that has ended


async def _first_answer(tries: dict[asyncio.Future[grpc.StatusCode], Any], *, within_s: float | None) -> Any:
    """Return a try that succeeded, or the last one if all have failed; None if neither happens within the time."""
    loop = asyncio.get_running_loop()
    ends_at = None if within_s is None else loop.time() + within_s
    while True:
        # All that have ended: one may have done so while the next one was sent.
        ended = [code for code in tries if code.done()]
        answers = [code for code in ended if code.result() not in DEPENDENCY_FAILURES]
        if answers or len(ended) == len(tries):
            return tries[(answers or ended)[-1]]
        left_s = None if ends_at is None else max(ends_at - loop.time(), 0)
        running = [code for code in tries if not code.done()]
        done, _ = await asyncio.wait(running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
