"""Messages as JSON Schema, as Envoy's transcoder reads and writes them.

An answer holds every field that cannot be absent (`always_print_primitive_fields`); a request is refused if it holds
a field that the message does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import FieldDescriptor

from protos.codegen.descriptors import behaves, entry_of, fields_of
from protos.codegen.errors import ERROR_SCHEMAS
from protos.codegen.examples import example
from protos.codegen.refusals import Refusal
from protos.codegen.rules import rules_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, EnumDescriptor

    from protos.codegen.descriptors import Contract
    from protos.codegen.json_types import JsonObject

_INT32: Final[JsonObject] = {"type": "integer", "format": "int32"}
_UINT32: Final[JsonObject] = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
# A string, because a number in JavaScript holds only 53 bits.
_INT64: Final[JsonObject] = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_UINT64: Final[JsonObject] = {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}
_SCALARS: Final[Mapping[int, JsonObject]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
}
_WELL_KNOWN: Final[Mapping[str, JsonObject]] = {
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.rpc.Status": {"$ref": "#/components/schemas/Error"},
}


class NameTaken(Refusal):
    """Two messages or enums would have the same name in the document."""


class UnknownForm(Refusal):
    """A message of Google's has a form of its own in JSON, which this module does not know yet."""


class Schemas:
    """The schemas of one document; each message and enum that is asked for becomes a component."""

    def __init__(self, contract: Contract) -> None:
        self._contract: Final = contract
        self._owners: Final = dict.fromkeys(ERROR_SCHEMAS, "an error")
        self.components: Final[dict[str, JsonObject]] = {}

    def message(self, message: Descriptor, *, is_request: bool, without: Sequence[str] = ()) -> JsonObject:
        """Return the schema of a message, without the fields that come another way.

        Raises:
            NameTaken: another message has its name.
            UnknownForm: its form in JSON is not known.
        """
        if message.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[message.full_name])
        if message.file.package == "google.protobuf":
            raise UnknownForm(f"{message.full_name}: name its form in JSON in protos/codegen/schemas.py, _WELL_KNOWN")
        # Requests and answers have rules of their own, so what stands in both is two schemas.
        name = f"{message.name}Input" if is_request and not message.name.endswith("Request") else message.name
        if self._is_new(name, owner=message.full_name + "".join(without)):
            fields = fields_of(message, without=without)
            self.components[name] = {
                "type": "object",
                "description": self._described(message.full_name, after="\n\n"),
                **self._deprecated(message.full_name),
                "properties": {field.json_name: self.field(field, is_request=is_request) for field in fields},
                **_bounds(fields, is_request=is_request),
            }
        return {"$ref": f"#/components/schemas/{name}"}

    def field(self, field: FieldDescriptor, *, is_request: bool) -> JsonObject:
        """Return the schema of a field: its type, its comment, an example; in a request the rules it must keep."""
        comment = self._described(field.full_name)
        schema = self._value(field, is_request=is_request)
        if not is_request:
            schema = _collected(schema, field=field) | {"description": comment}
        else:
            rules = rules_of(field)
            schema = _collected(schema | rules.items, field=field) | rules.keywords
            schema["description"] = f"{comment} Rules: {'; '.join(rules.words)}." if rules.words else comment
            if "enum" in rules.keywords:
                schema["type"] = "string"
                schema.pop("$ref")
        if field.message_type is None or entry_of(field):
            schema["examples"] = [example(field, is_request=is_request)]
        return schema | _marks(field) | self._deprecated(field.full_name)

    def _value(self, field: FieldDescriptor, *, is_request: bool) -> JsonObject:
        """Return the schema of one value of the field."""
        if entry := entry_of(field):
            return self._value(entry.fields_by_name["value"], is_request=is_request)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.message_type is not None:
            return self.message(field.message_type, is_request=is_request)
        return dict(_SCALARS[field.type])

    def _enum(self, enum: EnumDescriptor) -> JsonObject:
        if self._is_new(enum.name, owner=enum.full_name):
            values = [f"* `{each.name}`: {self._described(f'{enum.full_name}.{each.name}')}" for each in enum.values]
            self.components[enum.name] = {
                "type": "string",
                "description": "\n".join([self._described(enum.full_name, after="\n\n"), "", *values]),
                **self._deprecated(enum.full_name),
                "enum": [each.name for each in enum.values],
            }
        return {"$ref": f"#/components/schemas/{enum.name}"}

    def _described(self, name: str, *, after: str = " ") -> str:
        return self._contract.comment(name) + self._contract.notice(name, after=after)

    def _deprecated(self, name: str) -> JsonObject:
        return {"deprecated": True} if self._contract.deprecation(name) else {}

    def _is_new(self, name: str, *, owner: str) -> bool:
        if self._owners.setdefault(name, owner) != owner:
            raise NameTaken(f"{owner} and {self._owners[name]} would both be {name}")
        # Registered before its fields are read, so that a message may contain itself.
        return self.components.setdefault(name, {}) == {}


def is_required(field: FieldDescriptor) -> bool:
    """Return whether a request must hold the field."""
    return behaves(field, as_any_of=["REQUIRED"])


def _bounds(fields: Sequence[FieldDescriptor], *, is_request: bool) -> JsonObject:
    """Return which fields an object must have, and whether it may have others."""
    if is_request:
        return {"required": [field.json_name for field in fields if is_required(field)], "additionalProperties": False}
    return {"required": [field.json_name for field in fields if not field.has_presence]}


def _collected(schema: JsonObject, *, field: FieldDescriptor) -> JsonObject:
    """Return the schema of all values of the field."""
    if entry_of(field):
        return {"type": "object", "additionalProperties": schema}
    return {"type": "array", "items": schema} if field.is_repeated else schema


def _marks(field: FieldDescriptor) -> JsonObject:
    """Return which side sets the field, and whether it is a secret."""
    marks: JsonObject = {}
    if behaves(field, as_any_of=["OUTPUT_ONLY", "IDENTIFIER"]):
        marks["readOnly"] = True
    if behaves(field, as_any_of=["INPUT_ONLY"]):
        marks["writeOnly"] = True
    if field.GetOptions().debug_redact:
        marks["format"] = "password"
    return marks
