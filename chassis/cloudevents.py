"""Events on the wire: CloudEvents 1.0 as JSON, with data in the JSON mapping of Protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import orjson
from google.protobuf.json_format import ParseDict, ParseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")

_SPECVERSION: Final = "1.0"


class Malformed(Exception):
    """What was received is no event of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """Something that happened to a resource.

    Attributes:
        id: the same for every time it is published.
        source: who tells it: `/order_svc`.
        type: `order.created`.
        subject: the resource.
        sequence: counts the resource's changes from 1.
        time: when it happened, aware.
        traceparent: the trace of the call that made the change, or empty.
        data: what happened, as `docs/events.md` says for the type.
    """

    id: UUID
    source: str
    type: str
    subject: UUID
    sequence: int
    time: datetime
    traceparent: str
    data: Mapping[str, Any]

    def to_json(self) -> bytes:
        """Return the event as it is sent."""
        event = {
            "specversion": _SPECVERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time.astimezone(UTC),
            "sequence": str(self.sequence),
            "sequencetype": "Integer",
            "datacontenttype": "application/json",
            "data": self.data,
        }
        if self.traceparent:
            event["traceparent"] = self.traceparent
        return orjson.dumps(event, option=orjson.OPT_UTC_Z)

    @classmethod
    def from_json(cls, text: str | bytes) -> CloudEvent:
        """Return the event that was sent.

        Raises:
            Malformed: it is none.
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
                subject=UUID(event["subject"]),
                sequence=int(event["sequence"]),
                time=datetime.fromisoformat(event["time"]),
                traceparent=event.get("traceparent", ""),
                data=event["data"],
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Malformed("is no CloudEvent 1.0 with subject and sequence") from error


def data_of(event: CloudEvent, kind: type[M]) -> M:
    """Return the event's data as the message of its type. Fields that this version does not know are left out.

    Raises:
        Malformed: it is no such message.
    """
    try:
        return ParseDict(dict(event.data), kind(), ignore_unknown_fields=True)
    except (ParseError, TypeError, ValueError) as error:
        raise Malformed(f"is no {kind.DESCRIPTOR.name}") from error
