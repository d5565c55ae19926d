"""Takes traces and forgets them: `PORT=4317 python -m tests.perf.trace_sink`. OTLP over gRPC, whose answer is empty."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import grpc
import uvloop
from grpc import aio
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable


class _TakeAll(grpc.GenericRpcHandler):
    @override
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(_take)


async def _take(_request: bytes, _context: Callable[[], None]) -> bytes:
    return b""


async def serve() -> None:
    """Serve until the end."""
    server = aio.server()
    server.add_generic_rpc_handlers([_TakeAll()])
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve())
