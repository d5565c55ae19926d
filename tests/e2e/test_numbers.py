"""Whole numbers in JSON, in every field that takes a number: kept exactly, or refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from google.protobuf.descriptor import FieldDescriptor

from tests.e2e.callers import require_clean, rest_outcome
from tests.e2e.contract import BINDINGS, Binding, Place, name_of, with_value
from tests.e2e.world import request_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor

    from tests.e2e.world import World

WHOLE: Final = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}
# Around every size that a reader on the way may have: 32 bits, a double's 53, 64.
POWERS: Final = [2**exponent + more for exponent in (31, 32, 53, 63, 64) for more in (-1, 0, 1)]
NUMBERS: Final = [0, 1, *POWERS, *(-power for power in POWERS), 10**30, int("9" * 17)]


def number_places(message: Descriptor, above: Place = ()) -> Iterator[Place]:
    """Yield where a request holds a number; in a Struct, under one made-up key."""
    for field in message.fields:
        here: Place = (*above, field.json_name, 0) if field.is_repeated else (*above, field.json_name)
        if field.cpp_type in WHOLE:
            yield here
        elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
            yield (*here, "number")
        elif field.message_type is not None:
            yield from number_places(field.message_type, here)


PLACES: Final = [
    (binding, place)
    for binding in BINDINGS
    if binding.has_body
    for place in number_places(binding.rpc.request.DESCRIPTOR)
]


def label(value: object) -> str:
    return name_of(value) if isinstance(value, Binding) else ".".join(str(each) for each in value)


def at(body: Any, place: Place) -> Any:
    for step in place:
        body = body[step]
    return body


def test_the_contract_takes_numbers() -> None:
    places = {place for _, place in PLACES}

    assert {("items", 0, "quantity"), ("items", 0, "unitPrice", "units"), ("profile", "number")} <= places


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("binding", "place"), PLACES, ids=label)
def test_a_whole_number_is_kept_exactly_or_refused(world: World, binding: Binding, place: Place, number: int) -> None:
    request = with_value(request_json(world.request(binding.rpc.name)), place, number)
    call = binding.call(request)

    response = world.edge.http.request(
        call.verb, call.path, content=json.dumps(call.body), headers={"content-type": "application/json"}
    )
    outcome = rest_outcome(response)

    if outcome.is_refusal:
        require_clean(outcome)
        assert response.status_code == 400
        return
    # A 64-bit integer of the contract is text in JSON.
    assert at(json.loads(response.text), place) in {number, str(number)}
