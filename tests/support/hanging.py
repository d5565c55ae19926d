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
    from collections.abc import AsyncIterator


class Replica(grpc.GenericRpcHandler):
    """Accepts the calls of every method and answers them, or hangs; its health is SERVING in either case.

    Args:
        answers_after_s: how long each call takes; infinite for a replica that hangs.

    Attributes:
        address: where it listens.
        calls: the number of calls of each method.
        running: the number of calls without an answer yet.
    """

    def __init__(self, *, answers_after_s: float) -> None:
        self.address = ""
        self.calls = Counter[str]()
        self.running = 0
        self._answers_after_s = answers_after_s

    @override
    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method.startswith("/grpc."):
            return None
        self.calls[method] += 1
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, _request: bytes, _context: aio.ServicerContext[bytes, bytes]) -> bytes:
        self.running += 1
        try:
            if self._answers_after_s == math.inf:
                await asyncio.Event().wait()
            await asyncio.sleep(self._answers_after_s)
            return b""
        finally:
            self.running -= 1


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
