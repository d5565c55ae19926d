"""docs/events.md, and the types that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.events.redis_streams import stream_of
from protos.codegen.events import STREAMS, event_type

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("UserCreated", "user.created"),
        ("OrderStatusChanged", "order.status_changed"),
        ("OrderCancelled", "order.cancelled"),
    ],
)
def test_a_message_names_its_type(message: str, expected: str) -> None:
    assert event_type(message) == expected


def test_the_page_has_every_type_that_the_services_write() -> None:
    written = {"user.created", "user.updated", "user.deleted"}
    written |= {"order.created", "order.status_changed", "order.cancelled"}

    assert {line.removeprefix("### ") for line in PAGE.splitlines() if line.startswith("### ")} == written


def test_the_page_names_the_streams_that_the_relays_write_to() -> None:
    assert {resource: stream_of(resource) for resource in STREAMS} == STREAMS
    assert all(f"`{stream}`" in PAGE for stream in STREAMS.values())
