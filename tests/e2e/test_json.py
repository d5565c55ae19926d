"""A body is JSON by RFC 8259 with the fields of its message, or it is refused: nothing is guessed and nothing dropped.

A second parser decides here what a text means. If it means a message, REST does what gRPC does with the message:
its request id is the same, so that other content would be refused as REQUEST_ID_REUSED.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from chassis.testing import new_uuid
from tests.e2e.callers import rest_outcome
from tests.e2e.contract import RPCS, name_of
from tests.e2e.json_texts import message_of, texts
from tests.e2e.world import request_json

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    from tests.e2e.contract import Binding, Json
    from tests.e2e.world import World

MALFORMED: Final = ("shop.system.v1", "MALFORMED_REQUEST")


def kinds_in(message: Descriptor) -> set[tuple[object, ...]]:
    """Return the kinds of the fields of a message and of those in it, such as an optional text."""
    found: set[tuple[object, ...]] = set()
    for field in message.fields:
        inner = field.message_type
        is_known = inner is not None and inner.full_name.startswith("google.protobuf.")
        found.add((field.type, field.is_repeated, field.has_presence, inner.full_name if is_known else ""))
        if inner is not None and not is_known:
            found |= kinds_in(inner)
    return found


def bindings_with_every_kind() -> list[Binding]:
    """Return bindings with a body that have every kind of field between them, few of them."""
    candidates = {
        binding: kinds_in(rpc.request.DESCRIPTOR)
        for rpc in RPCS
        if rpc.has_request_id
        for binding in rpc.bindings[:1]
        if binding.has_body
    }
    chosen: list[Binding] = []
    while left := set().union(*candidates.values()) - set().union(*(candidates[each] for each in chosen)):
        chosen.append(max(candidates, key=lambda each: len(candidates[each] & left)))
    return chosen


WITH_BODY: Final = bindings_with_every_kind()


def difference(world: World, binding: Binding, request: Json, *, text: bytes) -> str | None:
    """Return what is done with the text that should not be; None if it is treated as it should be."""
    edge, rpc = world.edge, binding.rpc
    call = binding.call(request)
    headers = {"content-type": "application/json"}
    by_rest = rest_outcome(edge.http.request(call.verb, call.path, content=text, headers=headers))
    message = message_of(text, rpc.request)
    if message is None:
        if not by_rest.is_refusal or by_rest.reason != MALFORMED:
            return f"is no message, but answered {by_rest}"
        return None
    if "id" in request:
        message.id = request["id"]
    by_grpc = edge.grpc(rpc, message)
    if by_rest.is_refusal and by_grpc.is_refusal:
        # Text that protobuf cannot hold has no message of gRPC to compare with.
        return None if by_rest.reason == by_grpc.reason else f"{by_rest.reason}, over gRPC {by_grpc.reason}"
    if not by_rest.is_refusal and not message.request_id:
        return None  # done twice
    return None if by_rest.body == by_grpc.body else f"{by_rest}, over gRPC {by_grpc}"


def differences(world: World, binding: Binding) -> list[str]:
    """Return the texts that are not treated as they should be."""

    def fresh() -> Json:
        return request_json(world.request(binding.rpc.name))

    request = fresh()
    found = []
    names = [name for name, _ in texts({name: value for name, value in request.items() if name != "id"})]
    for at, name in enumerate(names):
        request = {**request, "requestId": new_uuid()}
        request.pop("etag", None)
        if binding.rpc.name == "CreateUser":
            request["email"] = f"{new_uuid()}@example.com"
        if binding.rpc.name == "UpdateOrderStatus":
            request = {**fresh(), "requestId": request["requestId"]}
        without_id = {name: value for name, value in request.items() if name != "id"}
        text = dict(texts(without_id)).get(name)
        if text is not None and (complaint := difference(world, binding, request, text=text)):
            found.append(f"{at} {name}: {complaint}")
    return found


@pytest.mark.parametrize("binding", WITH_BODY, ids=name_of)
def test_a_body_is_read_as_json_says_or_refused(world: World, binding: Binding) -> None:
    found = differences(world, binding)

    assert not found, "\n".join(found)
