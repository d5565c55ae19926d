"""Bytes that no generated stub would send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from google.protobuf import empty_pb2, struct_pb2
from grpc import StatusCode, aio
from shop.order.v1 import order_service_pb2
from shop.system.v1 import system_service_pb2
from shop.user.v1 import user_pb2, user_service_pb2

from chassis.testing import new_uuid, plain_channel, refusal_of
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import TestDatabase

USER_SERVICE: Final = "/shop.user.v1.UserService"
SERVICES: Final = (
    (user_service_pb2, "UserService"),
    (order_service_pb2, "OrderService"),
    (system_service_pb2, "SystemService"),
)
METHODS: Final = [
    f"/{service.full_name}/{method.name}"
    for module, name in SERVICES
    for service in [module.DESCRIPTOR.services_by_name[name]]
    for method in service.methods
]

# Protobuf's wire types (protobuf.dev/programming-guides/encoding).
VARINT: Final = 0
LENGTH_DELIMITED: Final = 2


class Wire:
    """A channel that sends bytes and receives bytes."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel

    async def send(self, method: str, message: bytes) -> bytes:
        return bytes(await self._channel.unary_unary(method)(message))


@pytest.fixture
async def users_wire(users_address: str) -> AsyncIterator[Wire]:
    async with plain_channel(users_address) as channel:
        yield Wire(channel)


@pytest.fixture
async def orders_wire(orders_address: str) -> AsyncIterator[Wire]:
    async with plain_channel(orders_address) as channel:
        yield Wire(channel)


@pytest.mark.parametrize(
    "message",
    [b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\xff", b"\x00", b"\x0b", b"{}", b"\x0a" + b"\xff" * 20],
    ids=["huge length", "cut off", "no tag", "field 0", "open group", "JSON", "endless number"],
)
async def test_malformed_bytes_are_refused_by_every_method(users_wire: Wire, orders_wire: Wire, message: bytes) -> None:
    for method in METHODS:
        wire = orders_wire if "Order" in method else users_wire

        refusal = await refusal_of(wire.send(method, message))

        assert (refusal.code, refusal.domain) == (StatusCode.INVALID_ARGUMENT, "shop.system.v1"), method
        assert refusal.reason == "MALFORMED_REQUEST"
        assert refusal.message == "The request cannot be decoded. Send the message that the contract names."


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
async def test_invalid_utf_8_is_refused(users_wire: Wire, text: bytes) -> None:
    for method in ("GetUser", "CreateUser", "DeleteUser", "UpdateUser"):
        refusal = await refusal_of(users_wire.send(f"{USER_SERVICE}/{method}", delimited(1, text)))

        assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


@pytest.mark.parametrize("depth", [15, 16, 17, 24, 25, 32, 33, 48, 49, 50, 51, 64, 99, 100, 101, 500, 10_000])
@pytest.mark.parametrize("kind", ["objects", "lists"])
async def test_a_profile_nested_too_deep_is_refused_however_deep(users_wire: Wire, kind: str, depth: int) -> None:
    request = create_user_request().SerializeToString() + delimited(4, nested(kind, depth))

    if depth <= 16:
        assert user_pb2.User.FromString(await users_wire.send(f"{USER_SERVICE}/CreateUser", request)).id
        return
    refusal = await refusal_of(users_wire.send(f"{USER_SERVICE}/CreateUser", request))

    assert refusal.code is StatusCode.INVALID_ARGUMENT
    assert refusal.reason in {"INVALID_FIELDS", "MALFORMED_REQUEST"}


async def test_a_profile_that_is_deep_in_an_update_is_refused(users_wire: Wire) -> None:
    created = await users_wire.send(f"{USER_SERVICE}/CreateUser", create_user_request().SerializeToString())
    user = user_pb2.User.FromString(created)

    for depth in (17, 60, 10_000):
        request = delimited(1, user.id.encode()) + delimited(4, nested("objects", depth))
        refusal = await refusal_of(users_wire.send(f"{USER_SERVICE}/UpdateUser", request))

        assert refusal.code is StatusCode.INVALID_ARGUMENT


async def test_fields_that_we_do_not_know_are_let_through(users_wire: Wire, users_database: TestDatabase) -> None:
    unknown = delimited(999, b"from a newer client") + number((1 << 29) - 1, 7)
    request = create_user_request(email="ada@example.com").SerializeToString() + unknown

    user = user_pb2.User.FromString(await users_wire.send(f"{USER_SERVICE}/CreateUser", request))

    assert user.email == "ada@example.com"
    assert users_database.query("SELECT count(*) FROM users") == [(1,)]


async def test_a_message_larger_than_any_valid_one_is_refused_by_every_method(
    users_wire: Wire, orders_wire: Wire
) -> None:
    for method in METHODS:
        wire = orders_wire if "Order" in method else users_wire

        refusal = await refusal_of(wire.send(method, delimited(999, b"a" * 256 * 1024)))

        assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"), method
        assert "Send less" in refusal.message


@pytest.mark.parametrize("count", [101, 5_000, 50_000])
async def test_too_many_items_are_one_mistake_however_many(orders_wire: Wire, count: int) -> None:
    refusal = await refusal_of(orders_wire.send("/shop.order.v1.OrderService/CreateOrder", delimited(3, b"") * count))

    assert (refusal.reason, refusal.fields) == ("INVALID_FIELDS", ("items",))


async def test_an_empty_message_is_one_without_fields(users_wire: Wire) -> None:
    refusal = await refusal_of(users_wire.send(f"{USER_SERVICE}/GetUser", b""))

    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")


async def test_the_last_of_a_field_that_is_sent_twice_counts(users_wire: Wire) -> None:
    user_id = new_uuid()
    message = delimited(1, b"not a uuid") + delimited(1, user_id.encode())

    refusal = await refusal_of(users_wire.send(f"{USER_SERVICE}/GetUser", message))

    assert (refusal.reason, refusal.metadata) == ("USER_NOT_FOUND", {"userId": user_id})


async def test_an_unknown_method_is_unimplemented(users_wire: Wire) -> None:
    for method in (f"{USER_SERVICE}/DropUsers", "/shop.order.v1.OrderService/GetOrder", "/x"):
        with pytest.raises(aio.AioRpcError) as failure:
            await users_wire.send(method, empty_pb2.Empty().SerializeToString())

        assert failure.value.code() is StatusCode.UNIMPLEMENTED


def delimited(field: int, content: bytes) -> bytes:
    """Return a field that holds text, bytes or a message."""
    return varint(field << 3 | LENGTH_DELIMITED) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    """Return a field that holds a number."""
    return varint(field << 3 | VARINT) + varint(value)


def varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def nested(kind: str, depth: int) -> bytes:
    """Return the bytes of a Struct of this many levels, itself among them; no library would write a deep one."""
    fields = struct_pb2.Struct.DESCRIPTOR.fields_by_name["fields"].number
    struct_value = struct_pb2.Value.DESCRIPTOR.fields_by_name["struct_value"].number
    list_value = struct_pb2.Value.DESCRIPTOR.fields_by_name["list_value"].number
    values = struct_pb2.ListValue.DESCRIPTOR.fields_by_name["values"].number

    value = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE).SerializeToString()
    for _ in range(depth - 1):
        if kind == "lists":
            value = delimited(list_value, delimited(values, value))
        else:
            value = delimited(struct_value, delimited(fields, delimited(1, b"a") + delimited(2, value)))
    return delimited(fields, delimited(1, b"a") + delimited(2, value))
