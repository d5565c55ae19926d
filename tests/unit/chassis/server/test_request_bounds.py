"""The most expensive messages of every request, generated from the contract's descriptors.

Work is counted in elements and bytes, never in seconds: what the service does with a bad request is compared with what
it does with the largest good one.
"""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any, Final

import pytest
from buf.validate import validate_pb2
from google.protobuf import descriptor_pool, message_factory, struct_pb2
from google.protobuf.descriptor import FieldDescriptor as Field
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import MAX_NAMED, DomainError, InvalidFields, MalformedRequest
from chassis.server import contract
from chassis.server.bounds import MAX_STRUCT_BYTES, MAX_STRUCT_VALUES, element_check_of, max_request_bytes
from chassis.server.status import status_of
from chassis.server.validation import require_valid
from tests.support.builders import SOME_ID
from tests.support.notes_svc import notes_pb2
from tests.support.notes_svc.requests import create_note_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

# Stock gRPC clients accept 8 KiB of headers. The status is in them twice: in base64, and its message again.
STOCK_HEADERS_BYTES: Final = 8 * 1024
# Of a Struct, as JSON.
MAX_JSON_BYTES: Final = 16 * 1024

NOTES: Final = notes_pb2.DESCRIPTOR
REQUESTS: Final = {
    method.input_type.full_name: message_factory.GetMessageClass(method.input_type)
    for service in (*contract.service_names(), *(each.full_name for each in NOTES.services_by_name.values()))
    for method in descriptor_pool.Default().FindServiceByName(service).methods
}
by_request = pytest.mark.parametrize("kind", REQUESTS.values(), ids=[name.split(".")[-1] for name in REQUESTS])


def rules_of(field: Field) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def is_struct(message: Descriptor) -> bool:
    return message.full_name == "google.protobuf.Struct"


def longest_text(rules: validate_pb2.StringRules, *, more: int = 0) -> str:
    """Return text of as many characters as may be, of four bytes each."""
    if rules.uuid and not more:
        return SOME_ID
    return "\U0001f600" * ((rules.max_len or rules.len or 3) + more)


def fullest(kind: type[Message], *, items: int | None = None, more: int = 0) -> Message:
    """Return a message with every field as large as its rules allow.

    Args:
        kind: of message.
        items: in each list, if not as many as it may have.
        more: by how much every text is too long.
    """
    message = kind()
    for field in message.DESCRIPTOR.fields:
        fill(message, field, items=items, more=more)
    return message


def fill(message: Message, field: Field, *, items: int | None, more: int) -> None:
    rules = rules_of(field)
    if field.is_repeated:
        count = rules.repeated.max_items if items is None else items
        getattr(message, field.name).extend([value_of(field, rules.repeated.items, more=more)] * count)
    elif field.message_type is None:
        setattr(message, field.name, value_of(field, rules, more=more))
    else:
        getattr(message, field.name).CopyFrom(value_of(field, rules, more=more))


def value_of(field: Field, rules: validate_pb2.FieldRules, *, more: int) -> Any:
    if field.message_type is not None and is_struct(field.message_type):
        return widest_struct()
    if field.message_type is not None:
        return fullest(message_factory.GetMessageClass(field.message_type), more=more)
    if field.type == Field.TYPE_STRING:
        return longest_text(rules.string, more=more)
    if field.type == Field.TYPE_ENUM:
        return -(2**31) if more else max(value.number for value in field.enum_type.values)
    return {Field.TYPE_INT32: -(2**31), Field.TYPE_INT64: -(2**63), Field.TYPE_BOOL: True}[field.type]


def widest_struct() -> struct_pb2.Struct:
    """Return the largest message that 16 KiB of JSON can be."""
    struct = struct_pb2.Struct()
    struct.update({"a": [1] * ((MAX_JSON_BYTES - len('{"a":[]}') + 1) // 2)})
    return struct


def lists_of(message: Descriptor) -> Iterator[Field]:
    """Yield every repeated field of a message and of what is in it."""
    for field in message.fields:
        if field.is_repeated:
            yield field
        if field.message_type is not None and not is_struct(field.message_type):
            yield from lists_of(field.message_type)


def refusal_of(check: Callable[[], object]) -> DomainError | None:
    try:
        check()
    except DomainError as error:
        return error
    return None


def require_good(request: Message) -> None:
    """Do what the service does before a servicer sees the request."""
    element_check_of(request.DESCRIPTOR)(request)
    require_valid(request)


@by_request
def test_the_largest_valid_request_is_decoded(kind: type[Message]) -> None:
    assert fullest(kind).ByteSize() <= max_request_bytes(kind.DESCRIPTOR)


@by_request
def test_the_bound_is_near_the_largest_valid_request(kind: type[Message]) -> None:
    # Twice: tags, lengths and enums count as long as they can be. 16 KiB are for fields of newer callers.
    assert max_request_bytes(kind.DESCRIPTOR) <= 2 * fullest(kind).ByteSize() + 2 * 16 * 1024


@by_request
def test_every_list_of_a_request_says_how_long_it_may_be(kind: type[Message]) -> None:
    assert [field.full_name for field in lists_of(kind.DESCRIPTOR) if not rules_of(field).repeated.max_items] == []


def test_no_request_takes_more_than_a_quarter_of_a_megabyte() -> None:
    assert max(max_request_bytes(kind.DESCRIPTOR) for kind in REQUESTS.values()) <= 256 * 1024


@by_request
@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("times", [1, 10, 1000])
def test_a_list_that_is_too_long_is_one_violation_whatever_its_items(
    kind: type[Message], more: int, times: int
) -> None:
    for field in kind.DESCRIPTOR.fields:
        if not field.is_repeated:
            continue
        for value in (value_of(field, rules_of(field).repeated.items, more=more), None):
            request = kind()
            count = rules_of(field).repeated.max_items * times + 1
            empty = "" if field.message_type is None else message_factory.GetMessageClass(field.message_type)()
            getattr(request, field.name).extend([empty if value is None else value] * count)

            refusal = refusal_of(lambda request=request: require_good(request))

            assert isinstance(refusal, InvalidFields)
            assert [(each.field, each.rule) for each in refusal.violations] == [(field.json_name, "repeated.max_items")]


@by_request
def test_a_refusal_fits_the_headers_that_stock_clients_take(kind: type[Message]) -> None:
    worst = [kind(), fullest(kind, more=1), fullest(kind, more=1000), fullest(kind, items=0, more=1)]

    for request in worst:
        refusal = refusal_of(lambda request=request: require_good(request))
        if refusal is None:
            continue
        status = status_of(refusal)

        # Percent-encoding makes three bytes of each that is not ASCII.
        assert status.message.isascii()
        assert status.ByteSize() * 4 / 3 + len(status.message) < STOCK_HEADERS_BYTES
        assert len(refusal.violations) <= MAX_NAMED


def test_violations_beyond_the_named_ones_are_counted() -> None:
    request = create_note_request(labels=[""] * 100)

    with pytest.raises(InvalidFields) as refused:
        require_good(request)

    assert len(refused.value.violations) == MAX_NAMED
    assert refused.value.message.endswith("; and 90 more")
    assert refused.value.message.count(":") == 11


@pytest.mark.parametrize("count", [1, 2, 10, 11, 20, 21])
def test_few_mistakes_are_all_named(count: int) -> None:
    with pytest.raises(InvalidFields) as refused:
        require_good(create_note_request(labels=[""] * count))

    assert len(refused.value.violations) == min(count, MAX_NAMED)
    assert ("more" in refused.value.message) == (count > 10)


def list_of_empty(count: int) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.fields["a"].list_value.values.extend([struct_pb2.Value()] * count)
    return struct


def map_of_empty(count: int) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    for n in range(count):
        struct.fields[str(n)].SetInParent()
    return struct


def lists_of_lists(count: int) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    for _ in range(count // 100 + 1):
        inner = struct.fields["a"].list_value.values.add().list_value
        inner.values.extend([struct_pb2.Value()] * 100)
    return struct


@pytest.mark.parametrize("make", [list_of_empty, map_of_empty, lists_of_lists])
def test_a_struct_has_a_largest_number_of_values(make: Callable[[int], struct_pb2.Struct]) -> None:
    require_good(create_note_request(extra=make(MAX_STRUCT_VALUES - 200)))

    refusal = refusal_of(lambda: require_good(create_note_request(extra=make(MAX_STRUCT_VALUES + 1))))

    assert isinstance(refusal, InvalidFields)
    assert [(each.field, each.rule) for each in refusal.violations] == [("extra", "struct.max_values")]


def test_the_largest_struct_there_can_be_passes() -> None:
    struct = widest_struct()

    require_good(create_note_request(extra=struct))

    assert struct.ByteSize() <= MAX_STRUCT_BYTES == 6 * MAX_JSON_BYTES


def memory_of(work: Callable[[], object]) -> int:
    """Return how many bytes Python holds at most while it works."""
    tracemalloc.start()
    try:
        refusal_of(work)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@by_request
def test_a_refusal_takes_no_more_memory_than_a_few_valid_requests(kind: type[Message]) -> None:
    valid, largest = fullest(kind), max_request_bytes(kind.DESCRIPTOR)
    allowed = 20 * memory_of(lambda: kind.FromString(valid.SerializeToString())) + 2 * 1024 * 1024

    for field in kind.DESCRIPTOR.fields:
        if field.message_type is None and not field.is_repeated:
            continue
        # The largest number of empty elements that fits.
        tag = (field.number << 3 | 2).to_bytes(1, "big")
        request = kind.FromString((tag + b"\0") * (largest // 2))

        assert memory_of(lambda request=request: require_good(request)) <= allowed


TAGS: Final = st.sampled_from([0x08, 0x0A, 0x10, 0x12, 0x18, 0x1A, 0x20, 0x22, 0x2A, 0x32])
PIECES: Final = st.tuples(TAGS, st.binary(max_size=12), st.integers(1, 20_000)).map(
    lambda piece: (bytes([piece[0]]) + (bytes([len(piece[1])]) if piece[0] & 7 else b"") + piece[1]) * piece[2]
)


@given(kind=st.sampled_from(list(REQUESTS.values())), pieces=st.lists(PIECES, max_size=3))
def test_any_bytes_have_a_small_answer(kind: type[Message], pieces: list[bytes]) -> None:
    data = b"".join(pieces)[: max_request_bytes(kind.DESCRIPTOR)]
    try:
        request = kind.FromString(data)
    except Exception:  # noqa: BLE001  no message: nothing to check
        return

    refusal = refusal_of(lambda: require_good(request))

    if refusal is not None:
        assert not isinstance(refusal, MalformedRequest)
        assert status_of(refusal).ByteSize() < 16 * 1024
