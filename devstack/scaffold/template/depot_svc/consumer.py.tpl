"""Applies the events of «cargos»: keeps which there are, and what last happened to each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chassis.events.copies import Copies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent

_CARGOS: Final = Copies("known_cargos", {"id": "«cargo key»", "last_event": "text", "last_at": "timestamptz"})


def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Apply events of «cargos»: those of one come in the order of its changes, and each once."""
    last = {event.subject: event for event in events}
    rows = [{"id": subject, "last_event": event.type, "last_at": event.time} for subject, event in last.items()]
    _CARGOS.put(connection, rows)
