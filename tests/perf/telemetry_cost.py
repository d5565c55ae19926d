"""The cost of telemetry: CPU of an empty call, bare and with it, sampled at 1 % and at 100 %, in one run.

    PYTHONPATH=generated .venv/bin/python -m tests.perf.telemetry_cost

Servers, a process each, answer the same calls of one client in turns. `bare` is grpc.aio with a handler and nothing
else. `telemetry_1` and `telemetry_100` have a service's telemetry around it: context, log line to a file, metrics, and
the spans of 1 % or all of the calls exported to a receiver. `everything_1` also has the rest of a service's wrapper:
access and validation. The client sends the same metadata to all. CPU is that of the server's whole process, exporting
included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import uvloop
from google.protobuf.empty_pb2 import Empty
from grpc import aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from typing_extensions import override

from chassis import telemetry
from chassis.auth.access import AccessControl
from chassis.server.application import tune_gc
from chassis.server.method_wrapper import HandlerCollector, MethodWrapper
from chassis.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from google.protobuf.message import Message

    from chassis.auth.access_tokens import AccessTokens
    from chassis.context import Call
    from chassis.server.method_wrapper import Behaviour, Context, Handler

REPOSITORY: Final = Path(__file__).parents[2]
_METHOD: Final = "/grpc.testing.Empty/Call"
_ROUNDS: Final = 15
_CALLS: Final = 2000
_IN_FLIGHT: Final = 32
_SHARES: Final = {"bare": 0.01, "telemetry_1": 0.01, "everything_1": 0.01, "telemetry_100": 1.0}
_RATIOS: Final = {
    "telemetry_1": "telemetry_cpu_vs_bare",
    "everything_1": "everything_cpu_vs_bare",
    "telemetry_100": "telemetry_cpu_vs_bare_at_100",
}


class Servicer:
    """Answers nothing with nothing."""

    async def answer(self, _request: Empty, _context: Any) -> Empty:
        return Empty()

    def add_to(self, server: aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(self.answer, Empty.FromString, Empty.SerializeToString)
        service, method = _METHOD[1:].split("/")
        server.add_registered_method_handlers(service, {method: handler})


class OnlyTelemetry(MethodWrapper):
    """The wrapper around a method without what is no telemetry."""

    @override
    def wrap(self, method: str, handler: Handler) -> Handler:
        behaviour = cast("Behaviour", handler.unary_unary)

        async def handle(context: Context, _call: Call) -> Message:
            return await behaviour(cast("Message", await context.read()), context)

        serve = self._observe(method, handle)
        return grpc.stream_unary_rpc_method_handler(serve, handler.request_deserializer, handler.response_serializer)


async def serve(kind: str) -> None:
    """Serve until standard input ends; the first line on standard error is the port."""
    with contextlib.ExitStack() as stack:
        server = aio.server()
        servicers: Any = server
        if kind != "bare":
            stack.enter_context(telemetry.running(TelemetrySettings(service_name="empty"), command="serve"))
            servicers = HandlerCollector()
        Servicer().add_to(servicers)
        if kind != "bare":
            # Without tokens, as health checks.
            access = AccessControl(cast("AccessTokens", None), [])
            wrapper = MethodWrapper if kind == "everything_1" else OnlyTelemetry
            servicers.serve_on(server, wrapper(access, max_call_s=30, max_stream_s=30))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        tune_gc()  # as every service does, the bare one too
        sys.stderr.write(f"{port}\n")
        sys.stderr.flush()
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(None)


@contextlib.contextmanager
def served(kind: str, *, receiver: str) -> Iterator[tuple[int, int]]:
    """Run a server; yield its process id and port."""
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver, "OTEL_BSP_MAX_QUEUE_SIZE": "20000"}
    with tempfile.NamedTemporaryFile(prefix=kind) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.perf.telemetry_cost", kind],
            cwd=REPOSITORY,
            env={**env, "PYTHONPATH": "generated"},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        assert process.stderr
        try:
            yield process.pid, int(process.stderr.readline())
        finally:
            process.stdin.close()
            process.wait(timeout=30)
            process.stderr.close()


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[str]:
    """Take spans and forget them; yield the address."""

    async def take(_request: bytes, _context: Any) -> pb.ExportTraceServiceResponse:
        return pb.ExportTraceServiceResponse()

    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    # grpcio's types know only sync handlers here.
    handler: Any = grpc.unary_unary_rpc_method_handler(
        cast("Any", take), None, pb.ExportTraceServiceResponse.SerializeToString
    )
    server = aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"Export": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, all of its threads (clock_getcpuclockid, 3)."""
    return time.clock_gettime((~pid << 3) | 2)


async def call_many(channel: aio.Channel, count: int, *, share: float) -> None:
    """Make calls, some at a time; of the share of them the traceparent says that they are sampled."""
    call = channel.unary_unary(_METHOD, Empty.SerializeToString, Empty.FromString)
    numbers = iter(range(count))

    async def call_some() -> None:
        for number in numbers:
            sampled = int((number + 1) * share) > int(number * share)
            traceparent = f"00-{number + 1:032x}-{number + 1:016x}-{sampled:02x}"
            metadata = (("x-request-id", f"6bd07a9d-d28b-45f4-a407-{number:012x}"), ("traceparent", traceparent))
            await call(Empty(), metadata=metadata, timeout=10)

    await asyncio.gather(*(call_some() for _ in range(_IN_FLIGHT)))


async def measure() -> dict[str, float]:
    """Return CPU-µs a call by kind, the median of the rounds, and the medians of the ratios to bare."""
    rounds: list[dict[str, float]] = []
    async with receiving() as receiver:
        with contextlib.ExitStack() as stack:
            servers = {kind: stack.enter_context(served(kind, receiver=receiver)) for kind in _SHARES}
            channels = {kind: aio.insecure_channel(f"127.0.0.1:{port}") for kind, (_, port) in servers.items()}
            for kind, channel in channels.items():
                await call_many(channel, _CALLS, share=_SHARES[kind])
            for _ in range(_ROUNDS):
                used = {}
                for kind, channel in channels.items():
                    before = cpu_s(servers[kind][0])
                    await call_many(channel, _CALLS, share=_SHARES[kind])
                    used[kind] = (cpu_s(servers[kind][0]) - before) / _CALLS * 1e6
                rounds.append(used)
            for channel in channels.values():
                await channel.close()
    result = {f"{kind}_cpu_us": statistics.median(each[kind] for each in rounds) for kind in _SHARES}
    for kind, name in _RATIOS.items():
        result[name] = statistics.median(each[kind] / each["bare"] for each in rounds)
    return {name: round(value, 3) for name, value in result.items()}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(serve(sys.argv[1]))
    else:
        sys.stdout.write(json.dumps(uvloop.run(measure()), indent=2) + "\n")
