"""The log line of a call names the deprecated fields that the request has, in a service of toys."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc import aio
from shop.system.v1.access_pb2 import access
from structlog.testing import capture_logs

from chassis.auth.access import AccessControl
from chassis.auth.access_tokens import AccessTokens, TokenSettings
from chassis.server.deprecated_fields import deprecated_fields_of
from chassis.server.method_wrapper import HandlerCollector, MethodWrapper
from chassis.testing import LOOPBACK, SIGNER, plain_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PACKAGE = "toys.server.v1"
SERVICE = f"{PACKAGE}.ToyService"
Field = descriptor_pb2.FieldDescriptorProto


def add_toys_to_the_contract() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="toys/server.proto", package=PACKAGE, syntax="proto3")
    file.dependency.extend(["shop/system/v1/access.proto", "google/rpc/status.proto"])
    size = file.enum_type.add(name="Size")
    for number, name in enumerate(["SIZE_UNSPECIFIED", "SIZE_SMALL", "SIZE_TINY"]):
        size.value.add(name=name, number=number).options.deprecated = name == "SIZE_TINY"
    toy = file.message_type.add(name="Toy")
    add_field(toy, "name")
    add_field(toy, "colour", deprecated=True)
    add_field(toy, "sizes", kind=f".{PACKAGE}.Size", label=Field.LABEL_REPEATED)
    add_field(toy, "parts", kind=f".{PACKAGE}.Toy", label=Field.LABEL_REPEATED)
    add_field(toy, "pieces", kind=f".{PACKAGE}.Piece", label=Field.LABEL_REPEATED)
    piece = file.message_type.add(name="Piece")
    add_field(piece, "weight", deprecated=True)
    add_field(file.message_type.add(name="Plain"), "end", kind=".google.rpc.Status")
    service = file.service.add(name="ToyService")
    for name, is_stream in (("MakeToy", False), ("WatchToys", True)):
        method = service.method.add(name=name, input_type=f".{PACKAGE}.Toy", output_type=f".{PACKAGE}.Plain")
        method.server_streaming = is_stream
        method.options.Extensions[access].public = True
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


def add_field(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    *,
    kind: str = "",
    label: Field.Label.ValueType = Field.LABEL_OPTIONAL,
    deprecated: bool = False,
) -> None:
    field = message.field.add(name=name, number=len(message.field) + 1, label=label)
    field.type = Field.TYPE_STRING
    if kind:
        field.type = Field.TYPE_ENUM if kind.endswith("Size") else Field.TYPE_MESSAGE
        field.type_name = kind
    field.options.deprecated = deprecated


add_toys_to_the_contract()
TOY = descriptor_pool.Default().FindMessageTypeByName(f"{PACKAGE}.Toy")
PLAIN = descriptor_pool.Default().FindMessageTypeByName(f"{PACKAGE}.Plain")
Toy: Any = message_factory.GetMessageClass(TOY)
Plain: Any = message_factory.GetMessageClass(PLAIN)


async def make_toy(_request: Any, _context: Any) -> Any:
    return Plain()


async def watch_toys(_request: Any, _context: Any) -> AsyncIterator[Any]:
    yield Plain()


@pytest.fixture
async def toys() -> AsyncIterator[aio.Channel]:
    """A channel to a service of toys, as the chassis serves it."""
    rules = AccessControl(AccessTokens(TokenSettings(), SIGNER), [SERVICE])
    coding: Any = {"request_deserializer": Toy.FromString, "response_serializer": Plain.SerializeToString}
    behaviours: Any = (make_toy, watch_toys)
    handlers = {
        "MakeToy": grpc.unary_unary_rpc_method_handler(behaviours[0], **coding),
        "WatchToys": grpc.unary_stream_rpc_method_handler(behaviours[1], **coding),
    }
    collector = HandlerCollector()
    collector.add_registered_method_handlers(SERVICE, handlers)
    server = aio.server()
    collector.serve_on(server, MethodWrapper(rules, max_call_s=10, max_stream_s=10))
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    async with contextlib.AsyncExitStack() as ends:
        ends.push_async_callback(server.stop, None)
        yield await ends.enter_async_context(plain_channel(f"{LOOPBACK}:{port}"))


async def logged_call(toys: aio.Channel, rpc: str, request: Any) -> Any:
    """Return the log line of a call."""
    path = f"/{SERVICE}/{rpc}"
    with capture_logs() as logged:
        if rpc == "WatchToys":
            stream: Any = toys.unary_stream(path)(request.SerializeToString())
            assert [message async for message in stream] == [b""]
        else:
            await toys.unary_unary(path)(request.SerializeToString())
    [line] = [each for each in logged if each["event"] == "rpc.handled"]
    return line


@pytest.mark.parametrize("rpc", ["MakeToy", "WatchToys"])
async def test_the_log_line_names_what_is_deprecated_in_the_request(toys: aio.Channel, rpc: str) -> None:
    line = await logged_call(toys, rpc, Toy(name="duck", colour="red"))

    assert line["method"] == f"/{SERVICE}/{rpc}"
    assert line["deprecated"] == [f"{PACKAGE}.Toy.colour"]


@pytest.mark.parametrize("rpc", ["MakeToy", "WatchToys"])
async def test_a_request_without_it_has_a_line_as_any_other(toys: aio.Channel, rpc: str) -> None:
    line = await logged_call(toys, rpc, Toy(name="duck"))

    assert "deprecated" not in line


@pytest.mark.parametrize(
    ("request_fields", "names"),
    [
        ({"sizes": [1, 2, 2]}, ["Size.SIZE_TINY"]),
        ({"sizes": [1]}, []),
        ({"pieces": [{"weight": ""}, {"weight": "1 kg"}]}, ["Piece.weight"]),
        ({"parts": [{"name": "wheel", "colour": "red"}]}, []),  # a type within itself is looked at once
        ({"colour": "red", "pieces": [{"weight": "1 kg"}]}, ["Piece.weight", "Toy.colour"]),
    ],
    ids=str,
)
def test_values_and_the_fields_of_inner_messages_count_too(request_fields: dict[str, Any], names: list[str]) -> None:
    find = deprecated_fields_of(TOY)

    assert find is not None
    assert find(Toy(**request_fields)) == [f"{PACKAGE}.{name}" for name in names]


def test_a_type_without_deprecated_fields_has_none_to_look_for() -> None:
    assert deprecated_fields_of(PLAIN) is None
