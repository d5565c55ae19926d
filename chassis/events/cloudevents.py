"""Events on the wire: CloudEvents 1.0 as JSON, with data in the JSON mapping of Protobuf."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import orjson
from google.protobuf.json_format import ParseDict, ParseError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

    from chassis.keys import Key

M = TypeVar("M", bound="Message")

_SPECVERSION: Final = "1.0"
# CloudEvents' sequence extension compares sequences as texts, so each is padded to the digits of the largest bigint.
_SEQUENCE_DIGITS: Final = 19
# Of the columns bigint and integer, in which readers keep both numbers.
_MAX_SEQUENCE: Final = 2**63 - 1
_MAX_EPOCH: Final = 2**31 - 1
_MAX_SUBJECT: Final = 255
# As str(UUID) has it, so that every subject is sent again as it came.
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Malformed(Exception):
    """The text is not an event of this system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """A change of a resource.

    Attributes:
        id: the same each time it is published.
        source: the service that publishes it: `/order_svc`.
        type: `order.created`.
        subject: the key of the resource. A text that is written as a UUID is one, also if other texts are keys.
        sequence: the number of the change among the resource's, from 1.
        time: of the change, aware.
        traceparent: of the call that made the change, or empty.
        data: the content, as `docs/events.md` describes it for the type.
        epoch: grows when the source's database was restored to an earlier time, because the restored database gives out
            some sequences once more.
    """

    id: UUID
    source: str
    type: str
    subject: Key
    sequence: int
    time: datetime
    traceparent: str
    data: Mapping[str, Any]
    epoch: int = 0

    def to_json(self) -> bytes:
        """Return the event as it is published."""
        event = {
            "specversion": _SPECVERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time.astimezone(UTC),
            "sequence": f"{self.sequence:0{_SEQUENCE_DIGITS}}",
            "sequencetype": "Integer",
            "datacontenttype": "application/json",
            "data": self.data,
        }
        if self.traceparent:
            event["traceparent"] = self.traceparent
        if self.epoch:
            event["epoch"] = self.epoch
        return orjson.dumps(event, option=orjson.OPT_UTC_Z)

    @classmethod
    def from_json(cls, text: str | bytes) -> CloudEvent:
        """Return the event of a published text.

        Raises:
            Malformed: the text is no CloudEvent 1.0 with a subject, a sequence and data.
        """
        try:
            event = orjson.loads(text)
            if event["specversion"] != _SPECVERSION:
                raise Malformed("is no CloudEvent 1.0")
            if not isinstance(event["data"], dict):
                raise Malformed("has no JSON object as data")
            return cls(
                id=UUID(event["id"]),
                source=event["source"],
                type=event["type"],
                subject=_subject_of(event["subject"]),
                sequence=_number(event["sequence"], least=1, largest=_MAX_SEQUENCE),
                time=_time_of(event["time"]),
                traceparent=event.get("traceparent", ""),
                data=event["data"],
                epoch=_number(event.get("epoch", 0), least=0, largest=_MAX_EPOCH),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Malformed("is no CloudEvent 1.0 with subject and sequence") from error


def _subject_of(text: str) -> Key:
    if not 0 < len(text) <= _MAX_SUBJECT or "\0" in text:
        raise Malformed("has no subject that a database can keep")
    return UUID(text) if _UUID.fullmatch(text) else text


def _number(given: str | int, *, least: int, largest: int) -> int:
    number = int(given)
    if not least <= number <= largest:
        raise Malformed("has a number that a database cannot keep")
    return number


def _time_of(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise Malformed("has a time without its offset")
    return time


def uuid_subject(event: CloudEvent) -> UUID:
    """Return the subject of an event whose resource has a UUID.

    Raises:
        Malformed: it is another text.
    """
    if isinstance(event.subject, UUID):
        return event.subject
    raise Malformed("has a subject that is no UUID")


def payload_of(message: Message) -> dict[str, object]:
    """Return the message in the JSON mapping of Protobuf, as an event's data: a quarter of what json_format costs.

    Numbers are always there, also 0; other fields only if they are set.
    """
    payload: dict[str, object] = {}
    for name, json_name, convert in _fields_of(message.DESCRIPTOR):
        value = getattr(message, name)
        if convert is payload_of:
            if message.HasField(name):
                payload[json_name] = payload_of(value)
        elif convert is not None:
            payload[json_name] = convert(value)
        elif value:
            payload[json_name] = value
    return payload


@functools.cache
def _fields_of(message: Descriptor) -> tuple[tuple[str, str, Callable[[Any], object] | None], ...]:
    return tuple((field.name, field.json_name, _conversion_of(field)) for field in message.fields)


def _conversion_of(field: FieldDescriptor) -> Callable[[Any], object] | None:
    """Return what makes the JSON of a field's value; None for what is JSON as it is and left out if it is empty."""
    if field.is_repeated:
        if field.type == field.TYPE_STRING:
            return list
    elif field.type == field.TYPE_STRING:
        return None
    elif field.type in {field.TYPE_INT32, field.TYPE_BOOL}:
        return lambda value: value
    elif field.type == field.TYPE_INT64:
        return str  # JSON's numbers end at 2^53
    elif field.type == field.TYPE_MESSAGE:
        return payload_of
    raise NotImplementedError(f"{field.full_name}: events have texts, lists of texts, integers, booleans and messages")


def data_of(event: CloudEvent, kind: type[M]) -> M:
    """Return the event's data as the message of its type, without the fields that this version does not know.

    Raises:
        Malformed: the data is no such message.
    """
    try:
        return ParseDict(dict(event.data), kind(), ignore_unknown_fields=True)
    except (ParseError, TypeError, ValueError) as error:
        raise Malformed(f"is no {kind.DESCRIPTOR.name}") from error
