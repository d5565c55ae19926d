"""`python -m tests.chaos.auditor worker`: a consumer of the orders' events that writes down every effect, in order.

Events of a subject in the table `poison` fail, as those of a defect would.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import text

from chassis.events.commands import EventCommands
from chassis.runtime.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent

DDL = """
CREATE TABLE audit (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject uuid NOT NULL,
    sequence bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE poison (subject uuid PRIMARY KEY);
"""


class Poisoned(Exception):
    """The event cannot take effect."""


def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Write down the events."""
    subjects = [event.subject for event in events]
    if connection.scalar(text("SELECT 1 FROM poison WHERE subject = ANY (:subjects) LIMIT 1"), {"subjects": subjects}):
        raise Poisoned
    rows = [{"subject": event.subject, "sequence": event.sequence, "occurred_at": event.time} for event in events]
    connection.execute(
        text("INSERT INTO audit (subject, sequence, occurred_at) VALUES (:subject, :sequence, :occurred_at)"), rows
    )


COMMANDS = EventCommands(name="auditor", reads={"order": handle}).commands

if __name__ == "__main__":
    os.environ.setdefault("SERVICE_NAME", "auditor")
    main("tests.chaos.auditor", {"worker": "tests.chaos.auditor", "events": "tests.chaos.auditor"})
