"""How large a request can be that keeps the rules of the contract, and whether one is.

protovalidate looks at every element before it says that there are too many, and a decoder makes an object of each: a
hundred kilobytes of empty items would hold the loop for seconds. So a request is refused by its size before it is
decoded, and by the number of its elements before its rules are checked. Both bounds come from the descriptors and
their rules (buf.validate) alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from chassis.errors import FieldViolation, InvalidFields
from chassis.server.validation import json_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

# A Struct is kept up to 16 KiB of JSON. Numbers grow most when they become a message, `1,` from two bytes to eleven:
# six times as much is enough for every Struct.
MAX_STRUCT_BYTES: Final = 6 * 16 * 1024
# The least that a value takes in JSON is two bytes, `1,`.
MAX_STRUCT_VALUES: Final = 16 * 1024 // 2
# The least that a value takes in a message: its tag and its length. A smaller Struct cannot have too many.
_LEAST_VALUE_BYTES: Final = 2

# Of text and lists without a rule of their own, such as the currency of a google.type.Money.
_UNRULED_TEXT_BYTES: Final = 256
_UNRULED_ITEMS: Final = 100

# Fields that a newer caller knows and this service does not.
_UNKNOWN_FIELDS_BYTES: Final = 16 * 1024

_LONGEST_CHARACTER: Final = 4  # bytes of UTF-8
_UUID_BYTES: Final = 36
_LONGEST_VARINT: Final = 10
# Of the kinds whose size does not depend on their value, or hardly.
_FIXED: Final[Mapping[int, int]] = {
    Field.TYPE_BOOL: 1,
    Field.TYPE_DOUBLE: 8,
    Field.TYPE_FIXED64: 8,
    Field.TYPE_SFIXED64: 8,
    Field.TYPE_FLOAT: 4,
    Field.TYPE_FIXED32: 4,
    Field.TYPE_SFIXED32: 4,
}


def max_request_bytes(message: Descriptor) -> int:
    """Return the size in bytes up to which a message of this type is decoded.

    No message that keeps its rules is larger, whatever fields of a newer version it has, up to 16 KiB of them.
    """
    return _max_bytes(message, outside=()) + _UNKNOWN_FIELDS_BYTES


def _max_bytes(message: Descriptor, *, outside: tuple[Descriptor, ...]) -> int:
    if message in (Struct.DESCRIPTOR, Value.DESCRIPTOR, ListValue.DESCRIPTOR) or message in outside:
        # The types that contain themselves have no other bound.
        return MAX_STRUCT_BYTES
    return sum(_field_bytes(field, outside=(*outside, message)) for field in message.fields)


def _field_bytes(field: Field, *, outside: tuple[Descriptor, ...]) -> int:
    rules = _rules_of(field)
    times = _max_items(rules) if field.is_repeated else 1
    value_rules = rules.repeated.items if field.is_repeated else rules
    return times * (_LONGEST_VARINT + _value_bytes(field, value_rules, outside=outside))


def _value_bytes(field: Field, rules: validate_pb2.FieldRules, *, outside: tuple[Descriptor, ...]) -> int:
    """Return the size of the largest value, with its length if it has one, without its tag."""
    if field.message_type is not None:
        return _max_bytes(field.message_type, outside=outside)
    if field.type == Field.TYPE_STRING:
        return _text_bytes(rules.string)
    if field.type == Field.TYPE_BYTES:
        return rules.bytes.max_len or rules.bytes.len or _UNRULED_TEXT_BYTES
    return _FIXED.get(field.type, _LONGEST_VARINT)


def _text_bytes(rules: validate_pb2.StringRules) -> int:
    if rules.uuid:
        return _UUID_BYTES
    characters = rules.max_len or rules.len
    in_bytes = rules.max_bytes or rules.len_bytes
    return in_bytes or characters * _LONGEST_CHARACTER or _UNRULED_TEXT_BYTES


def _rules_of(field: Field) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def _max_items(rules: validate_pb2.FieldRules) -> int:
    return rules.repeated.max_items or rules.map.max_pairs or _UNRULED_ITEMS


@dataclass(frozen=True, slots=True)
class _Counted:
    """A field that holds many elements, or messages that do.

    Attributes:
        max_items: how many elements it may have; None for a single message.
        inside: the fields of its messages that hold many.
    """

    name: str
    max_items: int | None
    inside: tuple[_Counted, ...]
    is_struct: bool


class Elements:
    """The number of elements that messages of one type may have.

    Args:
        message: the type.
    """

    def __init__(self, message: Descriptor) -> None:
        self._counted: Final = _counted_fields(message, outside=())

    def require_few(self, request: Message) -> None:
        """Return if no list, map or Struct of the request has more elements than its rules allow.

        Touches no element of a list that is too long.

        Raises:
            InvalidFields: one has; the first is named.
        """
        if self._counted:
            _require_few(request, self._counted, path="")


def _counted_fields(message: Descriptor, *, outside: tuple[Descriptor, ...]) -> tuple[_Counted, ...]:
    return tuple(
        counted
        for field in message.fields
        for counted in [_counted_field(field, outside=(*outside, message))]
        if counted.max_items is not None or counted.inside or counted.is_struct
    )


def _counted_field(field: Field, *, outside: tuple[Descriptor, ...]) -> _Counted:
    kind = field.message_type
    is_struct = kind is not None and kind in (Struct.DESCRIPTOR, Value.DESCRIPTOR, ListValue.DESCRIPTOR)
    has_messages = kind is not None and not is_struct and kind not in outside and not kind.GetOptions().map_entry
    return _Counted(
        name=field.name,
        max_items=_max_items(_rules_of(field)) if field.is_repeated else None,
        inside=_counted_fields(kind, outside=outside) if has_messages and kind is not None else (),
        is_struct=is_struct,
    )


def _require_few(message: Message, fields: Sequence[_Counted], *, path: str) -> None:
    for field in fields:
        here = f"{path}{json_name(field.name)}"
        value = getattr(message, field.name)
        if field.max_items is not None and len(value) > field.max_items:
            raise _too_many(here, field.max_items)
        if not (field.inside or field.is_struct) or (field.max_items is None and not message.HasField(field.name)):
            continue
        for n, each in enumerate(value) if field.max_items is not None else [(-1, value)]:
            place = here if n < 0 else f"{here}[{n}]"
            if field.is_struct:
                _require_few_values(each, path=place)
            else:
                _require_few(each, field.inside, path=f"{place}.")


def _too_many(path: str, max_items: int) -> InvalidFields:
    message = f"must contain no more than {max_items} item(s)"
    return InvalidFields([FieldViolation(path, message, "repeated.max_items")])


def _require_few_values(value: Message, *, path: str) -> None:
    """Return if a Struct has no more values than 16 KiB of JSON can have."""
    if value.ByteSize() <= _LEAST_VALUE_BYTES * MAX_STRUCT_VALUES:
        return
    left = MAX_STRUCT_VALUES
    waiting: list[Message] = [value]
    while waiting:
        children, count = _children(waiting.pop())
        left -= count
        if left < 0:
            message = f"must have at most {MAX_STRUCT_VALUES} values"
            raise InvalidFields([FieldViolation(path, message, "struct.max_values")])
        waiting += children


def _children(value: Message) -> tuple[Iterable[Message], int]:
    """Return the values that are directly in this one, and how many they are: known before one of them is touched."""
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
