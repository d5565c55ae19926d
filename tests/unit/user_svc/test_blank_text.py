"""Text that says nothing, in whatever characters, is refused wherever the contract wants text."""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING, Final

import pytest
from buf.validate import validate_pb2
from google.protobuf import message_factory
from shop.order.v1 import order_service_pb2
from shop.system.v1 import text_rules_pb2
from shop.user.v1 import session_service_pb2, user_service_pb2

from chassis.errors import InvalidFields
from chassis.server.validation import json_name, require_valid
from user_svc.text import is_blank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

SERVICES: Final = [order_service_pb2, user_service_pb2, session_service_pb2]
# Unicode's property Default_Ignorable_Code_Point (DerivedCoreProperties.txt, version 16), as ranges.
IGNORABLE: Final = [
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x61C, 0x61C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
]
BLANK: Final = [
    *(
        chr(point)
        for point in range(1, sys.maxunicode + 1)  # NUL is refused anyhow
        if unicodedata.category(chr(point)) in {"Zs", "Zl", "Zp", "Cc", "Cf"}
        or any(first <= point <= last for first, last in IGNORABLE)
    ),
    # Drawn as nothing, though Unicode calls them symbols.
    "\u2800",
    "\U0001d159",
]
SEEN: Final = [
    "a",
    "0",
    ".",
    "\u00e9",
    "e\u0301",
    "字",
    "ب",
    "👍",
    "👩\u200d👩\u200d👧",
    "\u00a0x\u200b",
    "\u0301",
    "⠁",
    "\u3164ㄱ",
]
"""Text that can be seen, some of it beside what cannot."""
NEWER: Final = ["\U00031350", "\U0001fae8", "\U0002ebf0", "\u1c89", "\U0001fae9"]
"""Letters and emoji of Unicode 15 and 16, which are not assigned in the tables of older Pythons."""


def text_fields(message: Descriptor) -> Iterator[tuple[tuple[FieldDescriptor, ...], FieldDescriptor]]:
    """Yield the fields of strings of a message, each with the fields of messages that lead to it."""
    for field in message.fields:
        if field.type == field.TYPE_STRING and not field.is_repeated:
            yield (), field
        elif field.message_type is not None and field.message_type.full_name.startswith("shop."):
            yield from (((field, *way), leaf) for way, leaf in text_fields(field.message_type))


def wants_text(field: FieldDescriptor) -> bool:
    rules = field.GetOptions().Extensions[validate_pb2.field].string
    is_orders = field.file.package == "shop.order.v1"
    return rules.Extensions[text_rules_pb2.not_blank] or (is_orders and rules.min_len > 0)


FIELDS: Final = [
    (method.input_type, way, field)
    for module in SERVICES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    for way, field in text_fields(method.input_type)
    if wants_text(field)
]
NAMES: Final = [f"{message.name}.{field.name}" for message, _, field in FIELDS]


def rules_broken(
    message: Descriptor, *, way: tuple[FieldDescriptor, ...], field: FieldDescriptor, text: str
) -> set[str]:
    """Return the rules that the field breaks with this text."""
    request: Message = message_factory.GetMessageClass(message)()
    part, path = request, ""
    for step in way:
        inner = getattr(part, step.name)
        part = inner.add() if step.is_repeated else inner
        path += json_name(step.name) + ("[0]." if step.is_repeated else ".")
    setattr(part, field.name, text)
    try:
        require_valid(request)
    except InvalidFields as refusal:
        return {each.rule for each in refusal.violations if each.field == path + json_name(field.name)}
    return set()


def test_the_contract_has_fields_that_need_visible_text() -> None:
    assert {"CreateOrderRequest.product_id", "CreateOrderRequest.name", "CreateUserRequest.display_name"} <= set(NAMES)


@pytest.mark.parametrize(("message", "way", "field"), FIELDS, ids=NAMES)
def test_every_character_that_cannot_be_seen_is_blank(
    message: Descriptor, way: tuple[FieldDescriptor, ...], field: FieldDescriptor
) -> None:
    accepted = [
        f"U+{ord(character):04X}"
        for character in BLANK
        if "string.not_blank" not in rules_broken(message, way=way, field=field, text=character * 3)
    ]

    assert accepted == []


@pytest.mark.parametrize(("message", "way", "field"), FIELDS, ids=NAMES)
def test_text_that_can_be_seen_is_not_blank(
    message: Descriptor, way: tuple[FieldDescriptor, ...], field: FieldDescriptor
) -> None:
    refused = [
        text for text in SEEN + NEWER if "string.not_blank" in rules_broken(message, way=way, field=field, text=text)
    ]

    assert refused == []


def test_the_service_finds_the_same_characters_blank_as_the_contract() -> None:
    characters = [chr(point) for point in range(1, sys.maxunicode + 1)]

    assert {each for each in characters if is_blank(each)} == set(BLANK)
    assert not any(is_blank(text) for text in SEEN + NEWER)
