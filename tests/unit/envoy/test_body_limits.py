"""The limit of a body follows from the contract: the largest valid request passes, and little more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from buf.validate import validate_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from chassis.server.validation import require_valid
from envoy.body_limits import MAX_BODY_BYTES, MIN_BODY_BYTES, Unbounded, body_limit, largest_json
from envoy.contract import DESCRIPTOR_SET, Contract
from tests.unit.protos.test_contract import METHODS

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, MethodDescriptor
    from google.protobuf.message import Message

CONTRACT = Contract(DESCRIPTOR_SET.read_bytes())

Json = dict[str, Any]

_ID = "01890000-0000-7000-8000-00000000000f"
_WIDEST = "𝄞"  # four bytes of UTF-8, two escapes
_INTEGERS: dict[int, object] = {Field.TYPE_INT32: 2**31 - 1, Field.TYPE_UINT32: 2**32 - 1, Field.TYPE_INT64: "9" * 18}
# Bounded by an expression, which says no number.
_BOUNDED_BY_EXPRESSION = {"currency_code": "EUR", "nanos": 999_999_999}


def largest(message: Descriptor) -> Json:
    """Return the JSON of the largest message that keeps the rules, as far as rules go by size."""
    return {field.json_name: _value(field) for field in message.fields}


def _value(field: Field) -> object:
    rules = field.GetOptions().Extensions[validate_pb2.field]
    if field.is_repeated:
        return [_one(field, rules.repeated.items)] * rules.repeated.max_items
    return _one(field, rules)


def _one(field: Field, rules: validate_pb2.FieldRules) -> object:
    if field.name in _BOUNDED_BY_EXPRESSION:
        return _BOUNDED_BY_EXPRESSION[field.name]
    if field.message_type:
        # 16 KiB as JSON without white space. Numbers grow most when they are indented, and when they become a message.
        is_struct = field.message_type.full_name == "google.protobuf.Struct"
        return {"a": [1] * 8_188} if is_struct else largest(field.message_type)
    if field.enum_type:
        return max((value.name for value in field.enum_type.values if value.number), key=len)
    if field.type == Field.TYPE_STRING:
        if rules.string.uuid:
            return _ID
        # A pattern allows what names are made of, and nothing wider.
        return ("a" if rules.string.pattern else _WIDEST) * rules.string.max_len
    return rules.int32.lte or _INTEGERS[field.type]


def escaped(value: object) -> str:
    """Return the JSON of a value with every character of its texts escaped, but for the names of fields."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{escaped(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(escaped, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    units = value.encode("utf-16-be").hex()
    return '"' + "".join("\\u" + units[at : at + 4] for at in range(0, len(units), 4)) + '"'


def request_of(method: MethodDescriptor, content: Json) -> Message:
    return json_format.ParseDict(content, message_factory.GetMessageClass(method.input_type)())


def limit_of(method: MethodDescriptor) -> int:
    return CONTRACT.body_limit(method.containing_service.full_name, method.name)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_field_of_a_request_has_a_bound(method: MethodDescriptor) -> None:
    assert CONTRACT.largest_body(method.containing_service.full_name, method.name) < MAX_BODY_BYTES


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_largest_valid_request_passes_however_it_is_written(method: MethodDescriptor) -> None:
    content = largest(method.input_type)
    request = request_of(method, content)
    require_valid(request)

    spellings = [escaped(content), json.dumps(content, indent=2), json.dumps(content, ensure_ascii=False)]
    framed = 5 + request.ByteSize()

    assert max(framed, *(len(each.encode()) for each in spellings)) <= limit_of(method)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_profile_passes_with_every_character_escaped(method: MethodDescriptor) -> None:
    content = largest(method.input_type)
    if "profile" in content:
        content["profile"] = {"a": "b" * (16 * 1024 - 8)}

    assert len(escaped(content)) <= limit_of(method)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_limit_is_a_small_multiple_of_what_is_valid(method: MethodDescriptor) -> None:
    content = largest(method.input_type)
    largest_valid = max(len(escaped(content)), len(json.dumps(content, indent=2)))

    assert limit_of(method) <= max(MIN_BODY_BYTES, 2 * largest_valid)


def message_with(**options: object) -> dict[str, DescriptorProto]:
    field = FieldDescriptorProto(name="note", json_name="note", type=FieldDescriptorProto.TYPE_STRING)
    field.options.Extensions[validate_pb2.field].string.CopyFrom(validate_pb2.StringRules(**options))
    return {"shop.Note": DescriptorProto(name="Note", field=[field])}


def test_a_text_without_a_rule_is_named_and_gets_the_outer_limit() -> None:
    messages = message_with(min_len=1)

    with pytest.raises(Unbounded, match=r"shop\.Note\.note needs a rule max_len"):
        largest_json("shop.Note", messages)
    assert body_limit("shop.Note", messages) == MAX_BODY_BYTES


@pytest.mark.parametrize("names", [("Note",), ("Note", "Page"), ("Note", "Page", "Line")], ids=len)
def test_messages_that_hold_themselves_are_named_and_get_the_outer_limit(names: tuple[str, ...]) -> None:
    def holding(name: str, inner: str) -> DescriptorProto:
        kind = FieldDescriptorProto.TYPE_MESSAGE
        return DescriptorProto(name=name, field=[FieldDescriptorProto(name="a", type=kind, type_name=f".shop.{inner}")])

    messages = {f"shop.{name}": holding(name, names[number % len(names)]) for number, name in enumerate(names, start=1)}

    with pytest.raises(Unbounded, match=r"shop\.Note holds itself"):
        largest_json("shop.Note", messages)
    assert body_limit("shop.Note", messages) == MAX_BODY_BYTES


def test_a_list_without_a_rule_is_named() -> None:
    messages = message_with(max_len=10)
    messages["shop.Note"].field[0].label = FieldDescriptorProto.LABEL_REPEATED

    with pytest.raises(Unbounded, match=r"shop\.Note\.note needs a rule max_items"):
        largest_json("shop.Note", messages)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"max_len": 10}, MIN_BODY_BYTES), ({"max_len": 100_000}, 1_200_132), ({"max_bytes": 100_000}, 600_132),
     ({"max_len": 10**9}, MAX_BODY_BYTES)],
)  # fmt: skip
def test_the_limit_grows_with_the_rules_and_stays_between_64_kib_and_10_mib(
    options: dict[str, object], expected: int
) -> None:
    assert body_limit("shop.Note", message_with(**options)) == expected
