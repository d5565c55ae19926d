"""Profiles that are nested deeper than any library would write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from google.protobuf import struct_pb2
from grpc import StatusCode
from shop.user.v1 import user_pb2

from chassis.testing import plain_channel, refusal_of
from tests.support.requests import create_user_request
from tests.support.wire import Wire, delimited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

USER_SERVICE: Final = "/shop.user.v1.UserService"


@pytest.fixture
async def users_wire(users_address: str) -> AsyncIterator[Wire]:
    async with plain_channel(users_address) as channel:
        yield Wire(channel)


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
