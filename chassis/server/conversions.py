"""Conversions between messages and Python that more than one service needs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from chassis.errors import InvalidFields

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct, Value
    from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def set_timestamp(field: Timestamp, moment: datetime) -> None:
    """Set a message's timestamp to an aware time. Costs a fraction of Timestamp.FromDatetime."""
    # Integers: as a float, a time some centuries from now would round its last microseconds up to the next second.
    since = moment - _EPOCH
    field.seconds = since.days * 86_400 + since.seconds
    field.nanos = since.microseconds * 1000


def struct_to_dict(struct: Struct, *, field: str) -> dict[str, object]:
    """Return the struct as JSON values. Whole numbers become int: JSON does not tell them from floats.

    `field` is the struct's name in the JSON of the request.

    Raises:
        InvalidFields: a value has no kind, which google/protobuf/struct.proto calls an error. Kept as null it would be
            a value that the caller did not send.
    """
    return {key: _plain(value, field=field) for key, value in struct.fields.items()}


def _plain(value: Value, *, field: str) -> object:
    match value.WhichOneof("kind"):
        case "struct_value":
            return struct_to_dict(value.struct_value, field=field)
        case "list_value":
            return [_plain(each, field=field) for each in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "null_value":
            return None
        case _:
            raise InvalidFields.of(field, "must have a kind in each value: a null is null_value", "struct.kind")
