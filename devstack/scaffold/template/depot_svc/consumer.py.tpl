"""Applies the events of «cargos»: keeps which there are, and what last happened to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent

# Events of one resource come in the order of its changes, and each once.
_keep = text("""
    INSERT INTO known_cargos (id, last_event, last_at)
    SELECT id, last_event, last_at
    FROM unnest(CAST(:ids AS uuid[]), CAST(:types AS text[]), CAST(:times AS timestamptz[]))
        AS told (id, last_event, last_at)
    ON CONFLICT ON CONSTRAINT known_cargos_pkey DO UPDATE
    SET last_event = excluded.last_event, last_at = excluded.last_at
""")


def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Apply events of «cargos»."""
    last = {event.subject: event for event in events}
    if last:
        parameters = {
            "ids": list(last),
            "types": [event.type for event in last.values()],
            "times": [event.time for event in last.values()],
        }
        connection.execute(_keep, parameters)
