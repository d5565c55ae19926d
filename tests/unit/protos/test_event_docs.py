"""docs/events.md, and the types that it names."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from chassis.events.redis_streams import stream_of
from chassis.service import services
from protos.codegen import events
from protos.codegen.events import UnknownResource, event_type

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("UserCreated", "user.created"),
        ("UserStatusChanged", "user.status_changed"),
        ("UserDeleted", "user.deleted"),
    ],
)
def test_a_message_names_its_type(message: str, expected: str) -> None:
    assert event_type(message) == expected


def test_the_resource_of_a_message_is_the_longest_that_a_service_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    publishers = [SimpleNamespace(publishes=resource) for resource in ("gift", "gift_card", "user")]
    monkeypatch.setattr(events, "services", lambda: publishers)

    assert event_type("GiftCardSoldOut") == "gift_card.sold_out"
    assert event_type("GiftWrapped") == "gift.wrapped"
    with pytest.raises(UnknownResource, match="GhostSeen"):
        event_type("GhostSeen")


def test_the_page_has_every_type_that_the_services_write() -> None:
    sources = "".join((service.file.parent / "events.py").read_text() for service in services() if service.publishes)
    written = set(re.findall(r'"(\w+\.\w+)"', sources))

    assert len(written) >= len(services())
    assert {line.removeprefix("### ") for line in PAGE.splitlines() if line.startswith("### ")} == written


def test_the_page_names_the_streams_that_the_relays_write_to() -> None:
    assert all(f"`{stream_of(service.publishes)}`" in PAGE for service in services() if service.publishes)
