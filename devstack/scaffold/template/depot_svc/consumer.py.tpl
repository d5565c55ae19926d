"""Applies the events of «all cargos»: keeps which there are, and what last happened to each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chassis.events.copies import Copies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent

# [each read]
_CARGOS: Final = Copies("known_cargos", {"id": "«cargo key»", "last_event": "text", "last_at": "timestamptz"})
# [end]


# [each read]
def apply_cargos(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Apply events of «cargos»."""
    _keep_last(_CARGOS, connection, events)


# [end]
def _keep_last(known: Copies, connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Keep the last event of each: those of one come in the order of its changes, and each once."""
    last = {event.subject: event for event in events}
    rows = [{"id": subject, "last_event": event.type, "last_at": event.time} for subject, event in last.items()]
    known.put(connection, rows)
