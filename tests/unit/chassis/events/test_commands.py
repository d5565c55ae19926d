"""A service has the commands about events that it has a use for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chassis.events import commands
from chassis.events.commands import EventCommands
from chassis.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent


def ignore(_connection: Connection, _events: Sequence[CloudEvent]) -> None:
    """Let the events have no effect."""


PUBLISHES = EventCommands(name="a_svc", publishes="stock")
READS = EventCommands(name="a_svc", reads={"order": ignore})
BOTH = EventCommands(name="a_svc", publishes="stock", reads={"order": ignore, "user": ignore})
LETTERS = {"events dlq list", "events dlq requeue"}


@pytest.mark.parametrize(
    ("events", "names", "parts"),
    [
        (PUBLISHES, {"worker", "events replay"}, 2),
        (READS, {"worker", *LETTERS}, 1),
        (BOTH, {"worker", "events replay", *LETTERS}, 4),
    ],
)
def test_a_service_has_the_commands_of_its_role(events: EventCommands, names: set[str], parts: int) -> None:
    assert set(events.commands) == names
    assert events.part_count == parts


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service that reads the events of two resources."""
    service = Service(name="a_svc", collection="as", serves=(), publishes="a", reads=("order", "user"), modules={})
    monkeypatch.setattr(commands, "service_of", lambda _package: service)
    return service


def test_every_resource_that_is_read_has_its_effect(declared: Service) -> None:
    made = EventCommands.of(declared.name, handle={"user": ignore, "order": ignore})

    assert made.reads.keys() == {"order", "user"}
    assert (made.publishes, made.part_count) == ("a", 4)


@pytest.mark.parametrize(
    ("handle", "found"),
    [({}, "none"), ({"order": ignore}, "order"), ({"order": ignore, "cat": ignore}, "cat, order")],
)
def test_a_resource_without_an_effect_or_an_effect_without_one_is_refused(
    declared: Service, handle: Any, found: str
) -> None:
    with pytest.raises(ValueError, match=rf"reads: order, user; the effects that worker.py gives are of: {found}$"):
        EventCommands.of(declared.name, handle=handle)
