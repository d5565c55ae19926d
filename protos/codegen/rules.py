"""The validation rules of a field (buf.validate) as JSON Schema, and in words where JSON Schema has none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from buf.validate import validate_pb2

# Imported for its extensions: protobuf reads only those of imported files.
from shop.system.v1 import text_rules_pb2 as _text_rules  # noqa: F401  registers the extensions

from protos.codegen.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.descriptor import FieldDescriptor

    from protos.codegen.json_types import Json, JsonObject

_KEYWORDS: Final[Mapping[str, str]] = {
    "gt": "exclusiveMinimum",
    "gte": "minimum",
    "lt": "exclusiveMaximum",
    "lte": "maximum",
    "max_items": "maxItems",
    "max_len": "maxLength",
    "max_pairs": "maxProperties",
    "min_items": "minItems",
    "min_len": "minLength",
    "min_pairs": "minProperties",
    "pattern": "pattern",
    "unique": "uniqueItems",
}
# By the schema of the enum, by the schema of the items, and of the keys and values of a map.
_SAID_ELSEWHERE: Final = frozenset({"defined_only", "items", "keys", "values"})


class UnknownRule(Refusal):
    """A validation rule that this module cannot document yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules for the value of a field.

    Attributes:
        keywords: JSON Schema for the value; of a repeated field for the array, of a map for the object.
        items: JSON Schema for each item of a repeated field, and for each value of a map.
        words: the rest, each as the rest of a sentence: `must not be blank`.
    """

    keywords: JsonObject
    items: JsonObject
    words: tuple[str, ...]


def rules_of(field: FieldDescriptor) -> Rules:
    """Return the field's rules.

    Raises:
        UnknownRule: one of them has no translation here.
    """
    rules = field.GetOptions().Extensions[validate_pb2.field]
    keywords = _keywords(rules, field=field)
    words = list(_own_rules(rules))
    for rule in rules.cel:
        if pattern := _pattern(rule.expression):
            keywords["pattern"] = pattern
        else:
            words.append(rule.message)
    if names := _keywords(rules.map.keys, field=field):
        keywords["propertyNames"] = names
    items = rules.map.values if rules.HasField("map") else rules.repeated.items
    return Rules(keywords=keywords, items=_keywords(items, field=field), words=tuple(words))


def _keywords(rules: validate_pb2.FieldRules, *, field: FieldDescriptor) -> JsonObject:
    """Return the rules for the type of the field."""
    keywords: JsonObject = {}
    for rule, value in _of_type(rules):
        if rule.name in _KEYWORDS:
            keywords[_KEYWORDS[rule.name]] = value
        elif rule.full_name == "shop.system.v1.not_blank" and rules.ignore != validate_pb2.IGNORE_IF_ZERO_VALUE:
            keywords["minLength"] = 1
        elif rule.name == "uuid":
            keywords["format"] = "uuid"
        elif not rule.is_extension and rule.name not in _SAID_ELSEWHERE:
            raise UnknownRule(f"{field.full_name}: how is its rule {rule.name} documented?")
    if rules.required and field.enum_type is not None:
        keywords["enum"] = [each.name for each in field.enum_type.values if each.number]
    return keywords


def _own_rules(rules: validate_pb2.FieldRules) -> Iterator[str]:
    """Yield the messages of the rules that the contract itself declares."""
    for rule, _ in _of_type(rules):
        if rule.is_extension:
            yield from (cel.message for cel in rule.GetOptions().Extensions[validate_pb2.predefined].cel)


def _of_type(rules: validate_pb2.FieldRules) -> list[tuple[FieldDescriptor, Json]]:
    kind = rules.WhichOneof("type")
    return list(getattr(rules, kind).ListFields()) if kind else []


def _pattern(expression: str) -> str | None:
    """Return the pattern of a rule in CEL that is one and nothing else."""
    match = re.fullmatch(r"this\.matches\('([^'\\]+)'\)", expression)
    return match[1] if match else None
