"""The warnings for code that calls a deprecated rpc by `shop.client`, with a contract of toys."""

from __future__ import annotations

import contextlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from shop.system.v1.deprecation_pb2 import Deprecation, method_deprecation

from chassis.testing import LOOPBACK
from protos.client import connect, connect_sync
from protos.client.deprecation import warn_if_deprecated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SERVICE = "toys.client.v1.ToyService"
OLD, NEW, WATCH = f"/{SERVICE}/GetToy", f"/{SERVICE}/GetGame", f"/{SERVICE}/WatchToys"
SAID = "Deprecated as of 2026-11-01; may be removed from 2027-05-01 on. Use GetGame."


def add_toys_to_the_contract() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="toys/client.proto", package="toys.client.v1", syntax="proto3")
    file.dependency.append("shop/system/v1/deprecation.proto")
    file.message_type.add(name="Toy")
    service = file.service.add(name="ToyService")
    for name in ("GetToy", "GetGame", "WatchToys"):
        method = service.method.add(name=name, input_type=".toys.client.v1.Toy", output_type=".toys.client.v1.Toy")
        if name != "GetGame":
            method.options.deprecated = True
            dates = Deprecation(since="2026-11-01", sunset="2027-05-01", replacement="Use GetGame.")
            method.options.Extensions[method_deprecation].CopyFrom(dates)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


add_toys_to_the_contract()


@pytest.fixture
def toys() -> Iterator[str]:
    """The address of a server with the rpcs, each of which answers with an empty message."""
    unary = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
    stream = grpc.unary_stream_rpc_method_handler(lambda _request, _context: iter([b""]))
    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"GetToy": unary, "GetGame": unary, "WatchToys": stream}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    yield f"{LOOPBACK}:{port}"
    server.stop(None)


@contextlib.contextmanager
def recorded() -> Iterator[Sequence[warnings.WarningMessage]]:
    """Record the warnings of a process that has warned of nothing yet."""
    warn_if_deprecated.cache_clear()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield seen


def call_sync(address: str, path: str) -> None:
    with connect_sync(address) as channel:
        if path == WATCH:
            list(channel.unary_stream(path)(b""))
        else:
            channel.unary_unary(path)(b"")


async def call_async(address: str, path: str) -> None:
    async with connect(address) as channel:
        stub: Any = channel.unary_stream if path == WATCH else channel.unary_unary
        if path == WATCH:
            assert [message async for message in stub(path)(b"")] == [b""]
        else:
            await stub(path)(b"")


@pytest.mark.parametrize("path", [OLD, WATCH])
def test_a_deprecated_rpc_warns_once_where_it_is_called(toys: str, path: str) -> None:
    with recorded() as seen:
        call_sync(toys, path)
        call_sync(toys, path)

    [warning] = seen
    assert str(warning.message) == f"{SERVICE}.{path.rpartition('/')[2]}: {SAID}"
    assert warning.category is DeprecationWarning
    assert Path(warning.filename) == Path(__file__)


@pytest.mark.parametrize("path", [OLD, WATCH])
async def test_under_asyncio_it_warns_too(toys: str, path: str) -> None:
    with recorded() as seen:
        await call_async(toys, path)
        await call_async(toys, path)

    assert [str(each.message) for each in seen] == [f"{SERVICE}.{path.rpartition('/')[2]}: {SAID}"]


async def test_no_other_rpc_warns(toys: str) -> None:
    with recorded() as seen:
        call_sync(toys, NEW)
        await call_async(toys, NEW)

    assert list(seen) == []


def test_where_warnings_are_errors_each_call_fails(toys: str) -> None:
    warn_if_deprecated.cache_clear()

    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DeprecationWarning, match=r"ToyService\.GetToy"):
                call_sync(toys, OLD)
