"""Checks requests against the rules of the contract (buf.validate), with protovalidate."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import protovalidate
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from protobuf import wkt
from shop.system.v1 import text_rules_pb2

from chassis.errors import MAX_NAMED, FieldViolation, InvalidFields

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.message import Message
    from protobuf import Registry


def _predefined_rules() -> Registry:
    """Return the rules that the contract has declared itself, with the files that they need.

    The stubs of the client wheel do not import them.
    """
    files: dict[str, FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        for each in file.dependencies:
            add(each)
        files[file.name] = FileDescriptorProto.FromString(file.serialized_pb)

    add(text_rules_pb2.DESCRIPTOR)
    data = FileDescriptorSet(file=files.values()).SerializeToString()
    return wkt.FileDescriptorSet.from_binary(data).to_registry()


_validator = protovalidate.Validator(_predefined_rules())


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
