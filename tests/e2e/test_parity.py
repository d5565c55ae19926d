"""REST and gRPC are two ways to say the same thing: every method, every binding, generated from the descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from buf.validate import validate_pb2
from google.protobuf import json_format

from tests.e2e.contract import BINDINGS, RPCS, Json, name_of
from tests.e2e.world import REQUESTS, is_standard, request_json, write_a_request
from tests.support.guards import all_facts

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    from tests.e2e.contract import Binding
    from tests.e2e.world import World

# Of the replica that happens to answer, at the moment it does.
_MOMENTARY = {"GetHealth": ["timestamp", "uptime", "memory", "service"], **all_facts("momentary")}


def test_every_method_has_a_request_that_succeeds() -> None:
    names = [rpc.name for rpc in RPCS]

    assert [write_a_request(rpc) for rpc in RPCS if rpc.name not in REQUESTS and not is_standard(rpc)] == []
    assert REQUESTS.keys() | _MOMENTARY.keys() <= {*names}, "an entry of a method that is not there any more"
    assert len(names) == len(set(names)), "two methods of one name: tests/e2e needs their full names"


def test_every_method_can_be_called_over_rest() -> None:
    assert [rpc.name for rpc in RPCS if not rpc.bindings] == []


@pytest.mark.parametrize("binding", BINDINGS, ids=name_of)
def test_rest_and_grpc_give_the_same_answer(world: World, binding: Binding) -> None:
    rpc = binding.rpc
    request = world.request(rpc.name)

    by_rest = world.edge.rest(binding.call(request_json(request)))
    # For writes, the request id makes the second call a repetition of the first: the same answer again.
    by_grpc = world.edge.grpc(rpc, request)

    assert by_rest.http == (201 if rpc.creates else 200), by_rest
    assert _comparable(by_rest.body, rpc.name) == _comparable(by_grpc.body, rpc.name)
    json_format.ParseDict(by_rest.body, rpc.reply())


@pytest.mark.parametrize("binding", [each for each in BINDINGS if each.rpc.has_request_id], ids=name_of)
def test_rest_repeats_what_grpc_did(world: World, binding: Binding) -> None:
    rpc = binding.rpc
    request = world.request(rpc.name)

    by_grpc = world.edge.grpc(rpc, request)
    by_rest = world.edge.rest(binding.call(request_json(request)))

    assert not by_grpc.is_refusal
    assert by_rest.http == (201 if rpc.creates else 200), by_rest
    assert by_rest.body == by_grpc.body


@pytest.mark.parametrize("binding", [each for each in BINDINGS if each.rpc.request.DESCRIPTOR.fields], ids=name_of)
def test_rest_and_grpc_refuse_for_the_same_reason(world: World, binding: Binding) -> None:
    rpc = binding.rpc
    field, value = _first_breaking(rpc.request.DESCRIPTOR)
    broken: Json = {**request_json(world.request(rpc.name)), field: value}

    by_rest = world.edge.rest(binding.call(broken))
    by_grpc = world.edge.grpc(rpc, json_format.ParseDict(broken, rpc.request()))

    assert by_rest.http == 400
    assert by_rest.reason == ("shop.system.v1", "INVALID_FIELDS")
    assert [each.partition("[")[0] for each in by_rest.fields] == [field]
    assert _with_sorted_details(by_rest.body) == _with_sorted_details(by_grpc.body)


def _first_breaking(message: Descriptor) -> tuple[str, object]:
    """Return the first field with a rule, and a value that breaks it."""
    for field in message.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        text = rules.repeated.items.string if field.is_repeated else rules.string
        if text.uuid:
            return field.json_name, ["junk"] if field.is_repeated else "junk"
        if text.max_len and not field.is_repeated:
            return field.json_name, "a" * (text.max_len + 1)
        if rules.int32.HasField("gte"):
            return field.json_name, rules.int32.gte - 1
    raise AssertionError(f"no rule of {message.full_name} can be broken: teach _first_breaking() about its kind")


def _comparable(body: Json, name: str) -> Json:
    return {key: value for key, value in body.items() if key not in _MOMENTARY.get(name, ())}


def _with_sorted_details(body: Json) -> Json:
    return {**body, "details": sorted(body["details"], key=lambda detail: str(detail["@type"]))}
