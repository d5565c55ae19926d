"""Replicas that accept calls and answer when a test says, or never."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from typing_extensions import override

from chassis.testing import LOOPBACK
from envoy.edge import SERVED_BY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection


class Replica(grpc.GenericRpcHandler):
    """Accepts the calls of every method and answers them, or hangs; its health is SERVING in either case.

    Args:
        answers_after_s: how long each call takes; infinite for a replica that hangs.
        hangs_at: methods at which it hangs in any case.

    Attributes:
        address: where it listens.
        calls: the number of calls of each method.
        running: the number of calls without an answer yet.
    """

    def __init__(self, *, answers_after_s: float, hangs_at: Collection[str] = ()) -> None:
        self.address = ""
        self.calls = Counter[str]()
        self.running = 0
        self._answers_after_s = answers_after_s
        self._hangs_at = hangs_at
        self._continues = asyncio.Event()

    def go_on(self) -> None:
        """Answer the calls that hang, now and from now on."""
        self._continues.set()

    @override
    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method.startswith("/grpc."):
            return None
        self.calls[method] += 1
        hangs = method in self._hangs_at or self._answers_after_s == math.inf

        async def answer(_request: bytes, _context: aio.ServicerContext[bytes, bytes]) -> bytes:
            self.running += 1
            try:
                # The time that the test gives an answer.
                await (self._continues.wait() if hangs else asyncio.sleep(self._answers_after_s))
                return b""
            finally:
                self.running -= 1

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.asynccontextmanager
async def serving(*replicas: Replica) -> AsyncIterator[None]:
    """Serve while the block runs; cancel the calls that still hang then."""
    async with contextlib.AsyncExitStack() as servers:
        for replica in replicas:
            server = aio.server()
            server.add_generic_rpc_handlers((replica,))
            healthy = health.HealthServicer()
            for name in ("", *(name for names in SERVED_BY.values() for name in names)):
                await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
            replica.address = f"{LOOPBACK}:{server.add_insecure_port(f'{LOOPBACK}:0')}"
            await server.start()
            servers.push_async_callback(server.stop, 0)
        yield
