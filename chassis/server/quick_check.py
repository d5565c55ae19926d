"""Recognises valid requests for a quarter of what protovalidate takes.

A check is made from the rules of a message type (buf.validate). It says yes only to messages that keep every rule. To
all others, and to types with rules that are not known here, it says no, which means nothing: protovalidate decides, and
describes what is wrong. A test compares the two on messages made at random.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor as Field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    Check: TypeAlias = Callable[[Any], bool]
    # Makes the check of a rule from its value and the field; None if it does not know it.
    Rule: TypeAlias = Callable[[Any, Field], Check | None]

_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# A text with one of these is not blank; whether other texts are is protovalidate's to say.
_VISIBLE: Final = re.compile(r"[0-9A-Za-z]")

# The expressions of the contract that often have to be evaluated; those on messages are protovalidate's dearest rules.
_EXPRESSIONS: Final[Mapping[str, Check]] = {
    "this.matches('^[A-Z]{3}$')": lambda this: _CURRENCY.fullmatch(this) is not None,
    "this.units >= 0 && this.nanos >= 0": lambda this: this.units >= 0 and this.nanos >= 0,
    "this.nanos <= 999999999": lambda this: this.nanos <= 999_999_999,
    "this.currency_code == '' || this.currency_code.matches('^[A-Z]{3}$')": lambda this: (
        this.currency_code == "" or _CURRENCY.fullmatch(this.currency_code) is not None
    ),
}


def _if_true(check: Check) -> Rule:
    return lambda is_on, _field: check if is_on else None


def _values_of(field: Field) -> Mapping[int, object]:
    return field.enum_type.values_by_number if field.enum_type else {}


_TEXT: Final[Mapping[str, Rule]] = {
    "uuid": _if_true(lambda text: _UUID.fullmatch(text) is not None),
    "min_len": lambda least, _: lambda text: len(text) >= least,
    "max_len": lambda most, _: lambda text: len(text) <= most,
    "shop.system.v1.no_nul": _if_true(lambda text: "\0" not in text),
    "shop.system.v1.not_blank": _if_true(lambda text: _VISIBLE.search(text) is not None),
}
_INTEGER: Final[Mapping[str, Rule]] = {
    "gte": lambda least, _: lambda number: number >= least,
    "lte": lambda most, _: lambda number: number <= most,
}
_ENUM: Final[Mapping[str, Rule]] = {
    "defined_only": lambda is_on, field: _values_of(field).__contains__ if is_on else None,
}
_RULES: Final[Mapping[str, tuple[int, Mapping[str, Rule]]]] = {
    "string": (Field.TYPE_STRING, _TEXT),
    "int32": (Field.TYPE_INT32, _INTEGER),
    "enum": (Field.TYPE_ENUM, _ENUM),
}


class _UnknownRule(Exception):
    """The type has a rule that is not known here."""


def quick_check_of(message: Descriptor) -> Check:
    """Return a function that returns True for messages of this type which certainly keep every rule."""
    try:
        return _all(_message_checks(message, parents=()))
    except _UnknownRule:
        return lambda _message: False


def _message_checks(message: Descriptor, *, parents: Sequence[Descriptor]) -> list[Check]:
    if message.full_name.startswith("google.protobuf."):
        return []  # without rules, and some of them contain themselves
    options: list[Message] = [message.GetOptions(), *[oneof.GetOptions() for oneof in message.oneofs]]
    has_rules = any(option.full_name.startswith("buf.validate.") for each in options for option, _ in each.ListFields())
    # A map is iterated by its keys, not by its entries.
    if has_rules or message in parents or message.GetOptions().map_entry:
        raise _UnknownRule
    return [check for field in message.fields for check in _field_checks(field, parents=(*parents, message))]


def _field_checks(field: Field, *, parents: Sequence[Descriptor]) -> list[Check]:
    rules: validate_pb2.FieldRules = field.GetOptions().Extensions[validate_pb2.field]
    if rules.ignore == validate_pb2.IGNORE_ALWAYS:
        return []
    if field.is_repeated:
        return _list_checks(field, rules, parents=parents)
    checks = _value_checks(field, rules, parents=parents)
    return [_field_check(field, rules, _all(checks))] if checks or rules.required else []


def _field_check(field: Field, rules: validate_pb2.FieldRules, check: Check) -> Check:
    name, is_required = field.name, rules.required
    if field.has_presence:
        return lambda message: check(getattr(message, name)) if message.HasField(name) else not is_required
    if is_required:
        return lambda message: bool(value := getattr(message, name)) and check(value)
    if rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
        return lambda message: not (value := getattr(message, name)) or check(value)
    return lambda message: check(getattr(message, name))


def _list_checks(field: Field, rules: validate_pb2.FieldRules, *, parents: Sequence[Descriptor]) -> list[Check]:
    bounds = rules.repeated
    is_known = _names(rules) <= {"repeated"} and _names(bounds) <= {"min_items", "max_items", "items"}
    if not is_known or _names(bounds.items) & {"ignore", "required"}:
        raise _UnknownRule
    name, least, most = field.name, bounds.min_items, bounds.max_items if bounds.HasField("max_items") else None
    checks = _value_checks(field, bounds.items, parents=parents)
    check = _all(checks)

    def keeps(message: Message) -> bool:
        values = getattr(message, name)
        if len(values) < least or (most is not None and len(values) > most):
            return False
        return not checks or all(map(check, values))

    return [keeps]


def _value_checks(field: Field, rules: validate_pb2.FieldRules, *, parents: Sequence[Descriptor]) -> list[Check]:
    """Return the checks of one value: of the field, or of an element if it is a list."""
    checks: list[Check] = []
    for rule, value in rules.ListFields():
        if rule.name in {"ignore", "required"}:
            continue
        if rule.name == "cel":
            checks += [_expression_check(each) for each in value]
            continue
        kind, known = _RULES.get(rule.name, (None, {}))
        if kind != field.type:
            raise _UnknownRule
        checks += [_rule_check(each, number, field, known=known) for each, number in value.ListFields()]
    if field.message_type is not None:
        checks += _message_checks(field.message_type, parents=parents)
    return checks


def _expression_check(rule: validate_pb2.Rule) -> Check:
    check = _EXPRESSIONS.get(rule.expression)
    if check is None:
        raise _UnknownRule
    return check


def _rule_check(rule: Field, value: Any, field: Field, *, known: Mapping[str, Rule]) -> Check:
    make = known.get(rule.full_name if rule.is_extension else rule.name)
    check = make(value, field) if make else None
    if check is None:
        raise _UnknownRule
    return check


def _names(rules: Message) -> set[str]:
    return {rule.name for rule, _ in rules.ListFields()}


def _all(checks: Sequence[Check]) -> Check:
    if len(checks) == 1:
        return checks[0]

    def keeps_all(value: Any) -> bool:
        for check in checks:  # noqa: SIM110  a generator would take three times as long
            if not check(value):
                return False
        return True

    return keeps_all
