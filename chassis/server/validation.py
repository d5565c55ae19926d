"""Checks requests against the rules of the contract (buf.validate), with protovalidate."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import protovalidate

from chassis.errors import MAX_NAMED, FieldViolation, InvalidFields

if TYPE_CHECKING:
    from google.protobuf.message import Message

_validator = protovalidate.Validator()


def require_valid(request: Message) -> None:
    """Return if the request keeps every rule of the contract.

    Raises:
        InvalidFields: it breaks rules; the error names the first ones and has their total number.
    """
    violations = _validator.collect_violations(request)
    if violations:
        # Bounded: describing a violation costs as much as finding it.
        named = [_field_violation(each) for each in violations[:MAX_NAMED]]
        raise InvalidFields(named, count=len(violations))


def _field_violation(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += ("." if path else "") + json_name(element.field_name)
        if element.subscript is not None and element.subscript.field == "index":
            path += f"[{element.subscript.value}]"
    return FieldViolation(field=path, message=proto.message, rule=proto.rule_id)


@functools.cache
def json_name(name: str) -> str:
    """Return a field's name as JSON has it: `display_name` becomes `displayName`."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
