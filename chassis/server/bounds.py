"""Bounds of a request: the largest size and the number of elements that the rules of its message type allow.

A decoder makes an object of every element, and protovalidate checks every element before it reports that there are too
many: 100 kB of empty items would hold the loop for seconds. So a request is refused by its size before it is decoded,
and by the number of its elements before its rules are checked. Both bounds are computed from the descriptors and their
rules (buf.validate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from chassis.errors import InvalidFields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

# A Struct may have 16 KiB as JSON. Numbers grow most from JSON to protobuf, `1,` from 2 bytes to 11, so six times as
# much is enough for every Struct.
MAX_STRUCT_BYTES: Final = 6 * 16 * 1024
# A value takes at least two bytes in JSON: `1,`.
MAX_STRUCT_VALUES: Final = 16 * 1024 // 2
# A value takes at least its tag and its length in protobuf. A Struct below that size cannot have too many values.
_MIN_VALUE_BYTES: Final = 2

# For text and lists without a rule of their own, such as the currency of a google.type.Money.
_UNRULED_TEXT_BYTES: Final = 256
_UNRULED_ITEMS: Final = 100

# Room for fields that a newer caller sends and this service does not know.
_UNKNOWN_FIELDS_BYTES: Final = 16 * 1024

_MAX_CHARACTER_BYTES: Final = 4  # in UTF-8
_UUID_BYTES: Final = 36
_MAX_VARINT_BYTES: Final = 10  # no number takes more


def max_request_bytes(message: Descriptor) -> int:
    """Return the size in bytes up to which a message of this type is decoded.

    No valid message is larger, if it has at most 16 KiB of fields of a newer version.
    """
    return _max_bytes(message, parents=()) + _UNKNOWN_FIELDS_BYTES


def _max_bytes(message: Descriptor, *, parents: tuple[Descriptor, ...]) -> int:
    if message in (Struct.DESCRIPTOR, Value.DESCRIPTOR, ListValue.DESCRIPTOR) or message in parents:
        # A type that contains itself has no other bound.
        return MAX_STRUCT_BYTES
    return sum(_field_bytes(field, parents=(*parents, message)) for field in message.fields)


def _field_bytes(field: Field, *, parents: tuple[Descriptor, ...]) -> int:
    rules = _rules_of(field)
    times = _max_items(rules) if field.is_repeated else 1
    value_rules = rules.repeated.items if field.is_repeated else rules
    return times * (_MAX_VARINT_BYTES + _value_bytes(field, value_rules, parents=parents))


def _value_bytes(field: Field, rules: validate_pb2.FieldRules, *, parents: tuple[Descriptor, ...]) -> int:
    """Return the size of the largest value, including a length prefix, without the tag."""
    if field.message_type is not None:
        return _max_bytes(field.message_type, parents=parents)
    if field.type == Field.TYPE_STRING:
        return _text_bytes(rules.string)
    if field.type == Field.TYPE_BYTES:
        return rules.bytes.max_len or rules.bytes.len or _UNRULED_TEXT_BYTES
    return _MAX_VARINT_BYTES


def _text_bytes(rules: validate_pb2.StringRules) -> int:
    if rules.uuid:
        return _UUID_BYTES
    characters = rules.max_len or rules.len
    in_bytes = rules.max_bytes or rules.len_bytes
    return in_bytes or characters * _MAX_CHARACTER_BYTES or _UNRULED_TEXT_BYTES


def _rules_of(field: Field) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def _max_items(rules: validate_pb2.FieldRules) -> int:
    return rules.repeated.max_items or rules.map.max_pairs or _UNRULED_ITEMS


@dataclass(frozen=True, slots=True)
class _BoundedField:
    """A field whose elements are counted: a list, a map, a Struct, or a message that contains such fields.

    Attributes:
        max_items: how many elements it may have; None for a single message.
        fields: the fields of its messages whose elements are counted.
    """

    name: str
    json_name: str
    max_items: int | None
    fields: tuple[_BoundedField, ...]
    is_struct: bool


def element_check_of(message: Descriptor) -> Callable[[Message], None]:
    """Return a function that raises InvalidFields if a list, map or Struct has more elements than its rules allow.

    It is for messages of this type. The error names the first such field; none of its elements is read.
    """
    fields = _bounded_fields(message, parents=())
    return (lambda request: _require_within(request, fields, path="")) if fields else lambda _request: None


def _bounded_fields(message: Descriptor, *, parents: tuple[Descriptor, ...]) -> tuple[_BoundedField, ...]:
    return tuple(
        bounded
        for field in message.fields
        for bounded in [_bounded_field(field, parents=(*parents, message))]
        if bounded.max_items is not None or bounded.fields or bounded.is_struct
    )


def _bounded_field(field: Field, *, parents: tuple[Descriptor, ...]) -> _BoundedField:
    kind = field.message_type
    is_struct = kind is not None and kind in (Struct.DESCRIPTOR, Value.DESCRIPTOR, ListValue.DESCRIPTOR)
    has_messages = kind is not None and not is_struct and kind not in parents and not kind.GetOptions().map_entry
    return _BoundedField(
        name=field.name,
        json_name=field.json_name,
        max_items=_max_items(_rules_of(field)) if field.is_repeated else None,
        fields=_bounded_fields(kind, parents=parents) if has_messages and kind is not None else (),
        is_struct=is_struct,
    )


def _require_within(request: Message, fields: Sequence[_BoundedField], *, path: str) -> None:
    for field in fields:
        here = f"{path}{field.json_name}"
        value = getattr(request, field.name)
        if field.max_items is not None and len(value) > field.max_items:
            message = f"must contain no more than {field.max_items} item(s)"
            raise InvalidFields.of(here, message, "repeated.max_items")
        if not (field.fields or field.is_struct) or (field.max_items is None and not request.HasField(field.name)):
            continue
        for n, each in enumerate(value) if field.max_items is not None else [(-1, value)]:
            element = here if n < 0 else f"{here}[{n}]"
            if field.is_struct:
                _require_struct_within(each, path=element)
            else:
                _require_within(each, field.fields, path=f"{element}.")


def _require_struct_within(value: Message, *, path: str) -> None:
    """Return if a Struct has no more values than 16 KiB of JSON can hold."""
    if value.ByteSize() <= _MIN_VALUE_BYTES * MAX_STRUCT_VALUES:
        return
    left = MAX_STRUCT_VALUES
    waiting: list[Message] = [value]
    while waiting:
        children, count = _children(waiting.pop())
        left -= count
        if left < 0:
            raise InvalidFields.of(path, f"must have at most {MAX_STRUCT_VALUES} values", "struct.max_values")
        waiting += children


def _children(value: Message) -> tuple[Iterable[Message], int]:
    """Return the direct children of a value, and their number, which is known before any of them is read."""
    if isinstance(value, Struct):
        return value.fields.values(), len(value.fields)
    if isinstance(value, ListValue):
        return value.values, len(value.values)
    if isinstance(value, Value):
        kind = value.WhichOneof("kind")
        if kind == "struct_value":
            return [value.struct_value], 0
        if kind == "list_value":
            return [value.list_value], 0
    return (), 0
