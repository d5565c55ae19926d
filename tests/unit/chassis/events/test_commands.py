"""A service has the commands about events that it has a use for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chassis.events.commands import EventCommands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent


def ignore(_connection: Connection, _events: Sequence[CloudEvent]) -> None:
    """Let the events have no effect."""


PUBLISHES = EventCommands(publishes="stock")
READS = EventCommands(reads="order", handle=ignore)
BOTH = EventCommands(publishes="stock", reads="order", handle=ignore)
LETTERS = {"events dlq list", "events dlq requeue"}


@pytest.mark.parametrize(
    ("events", "commands", "parts"),
    [
        (PUBLISHES, {"worker", "events replay"}, 2),
        (READS, {"worker", *LETTERS}, 1),
        (BOTH, {"worker", "events replay", *LETTERS}, 3),
    ],
)
def test_a_service_has_the_commands_of_its_role(events: EventCommands, commands: set[str], parts: int) -> None:
    assert set(events.commands) == commands
    assert events.part_count == parts


def test_events_that_are_read_have_an_effect() -> None:
    with pytest.raises(ValueError, match="reads and handle"):
        EventCommands(reads="order")
