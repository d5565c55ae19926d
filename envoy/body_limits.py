"""The maximum size of a request's body, computed from the rules of its message in the contract.

JSON allows many spellings of one message: any character may be escaped, and white space may separate tokens. The limit
allows the longest usual spelling, so that no valid request is refused and no request costs more than the largest valid
one.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from buf.validate.validate_pb2 import FieldRules, field  # its stubs know no extensions
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

MAX_BODY_BYTES: Final = 10 * 1024 * 1024
"""The limit of every body, even if its message is larger: 10 MiB."""

MIN_BODY_BYTES: Final = 64 * 1024
"""The lowest limit: 64 KiB, little more than the headers of a request may have."""

_ESCAPED_BYTE: Final = 6
"""Bytes of JSON for a byte of text: `a` as `\\u0061`. A character of several bytes takes less per byte."""

_ESCAPED_CHARACTER: Final = 12
"""Bytes of JSON for a character: two escapes for one outside the first 65,536."""

_BESIDE_VALUE: Final = 64
"""Bytes around a name and its value: quotes, colon, comma, a line break, and the indentation of eight levels."""

_NUMBER: Final = 32
"""The longest usual spelling of a number, quotes included: a double takes 24 characters."""

_UUID: Final = 36

_STRUCT_BYTES: Final = 16 * 1024
"""The contract's bound of a Struct: 16 KiB as JSON without white space."""

_TEXT_ELSEWHERE: Final[Mapping[str, int]] = MappingProxyType(
    {
        "google.type.Money.currency_code": 3,
        "shop.order.v1.CreateOrderRequest.currency_code": 3,
    }
)
"""Characters of texts whose length no rule bounds directly: an expression, or the service, does."""

_MESSAGES_WITH_OWN_FORM: Final[Mapping[str, int]] = MappingProxyType(
    {
        "google.protobuf.Struct": _STRUCT_BYTES * _ESCAPED_BYTE,
        "google.protobuf.Timestamp": 30 * _ESCAPED_BYTE,
        "google.protobuf.Duration": 30 * _ESCAPED_BYTE,
    }
)
"""Bytes of the well-known types whose JSON form is not an object with their fields."""

_TEXTS: Final = (FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES)


class Unbounded(Exception):
    """A field may have any length, because no rule of the contract bounds it."""


def body_limit(request: str, messages: Mapping[str, DescriptorProto]) -> int:
    """Return the maximum size in bytes of the body of a request, from `MIN_BODY_BYTES` to `MAX_BODY_BYTES`.

    If a field is unbounded, it is `MAX_BODY_BYTES`.

    Args:
        request: the full name of the request's message.
        messages: every message of the contract, by full name.
    """
    try:
        bound = largest_json(request, messages)
    except Unbounded:
        return MAX_BODY_BYTES
    return max(MIN_BODY_BYTES, min(bound, MAX_BODY_BYTES))


def largest_json(name: str, messages: Mapping[str, DescriptorProto], *, within: frozenset[str] = frozenset()) -> int:
    """Return the size in bytes of the longest usual JSON of a valid message.

    Args:
        name: the full name of the message.
        messages: every message of the contract, by full name.
        within: the messages around it.

    Raises:
        Unbounded: no rule bounds one of its fields; the exception names it.
    """
    if name in _MESSAGES_WITH_OWN_FORM:
        return _MESSAGES_WITH_OWN_FORM[name]
    around = within | {name}

    def of_message(inner: str) -> int:
        if inner in around:
            raise Unbounded(f"{inner} holds itself")
        return largest_json(inner, messages, within=around)

    return _BESIDE_VALUE + sum(
        len(each.json_name) + _BESIDE_VALUE + _value(each, name=f"{name}.{each.name}", of_message=of_message)
        for each in messages[name].field
    )


def _value(declared: FieldDescriptorProto, *, name: str, of_message: Callable[[str], int]) -> int:
    rules = declared.options.Extensions[field]
    if declared.label != FieldDescriptorProto.LABEL_REPEATED:
        return _one(declared, rules, name=name, of_message=of_message)
    if not rules.repeated.max_items:
        raise Unbounded(f"{name} needs a rule max_items")
    each = _one(declared, rules.repeated.items, name=name, of_message=of_message)
    return rules.repeated.max_items * (each + _BESIDE_VALUE)


def _one(declared: FieldDescriptorProto, rules: FieldRules, *, name: str, of_message: Callable[[str], int]) -> int:
    if declared.type == FieldDescriptorProto.TYPE_MESSAGE:
        return of_message(declared.type_name.removeprefix("."))
    if declared.type == FieldDescriptorProto.TYPE_ENUM:
        return 64 * _ESCAPED_BYTE  # by name: the longest has 31 characters
    if declared.type not in _TEXTS:
        return _NUMBER
    return _text(rules, name=name)


def _text(rules: FieldRules, *, name: str) -> int:
    text = rules.string
    if text.uuid:
        return _UUID * _ESCAPED_BYTE
    if length := text.len or text.max_len or _TEXT_ELSEWHERE.get(name, 0):
        return length * _ESCAPED_CHARACTER
    if length := text.max_bytes or rules.bytes.max_len:
        return length * _ESCAPED_BYTE
    raise Unbounded(f"{name} needs a rule max_len")
