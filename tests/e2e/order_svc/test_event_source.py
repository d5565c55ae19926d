"""Changes of orders as server-sent events, as browsers and proxies ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.callers import require_clean_error, server_sent
from tests.services.order_svc.placing import place_order

if TYPE_CHECKING:
    from tests.e2e.callers import Edge
    from tests.e2e.world import World


# Caches, proxies, browsers


def first_events(edge: Edge, path: str, **headers: str) -> list[str]:
    with edge.http.stream("GET", path, headers=headers) as response:
        lines = response.iter_lines()
        return [next(lines) for _ in range(6)]


def test_a_stream_is_not_held_back_by_proxies(edge: Edge) -> None:
    with edge.http.stream("GET", "/api/v1/orders:watch") as response:
        assert response.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("query", ["", "?", "?userId={}"])
def test_a_browser_that_opens_a_stream_again_misses_nothing(world: World, query: str) -> None:
    begin = first_events(world.edge, "/api/v1/orders:watch")[0]
    order = place_order(world)

    again = first_events(
        world.edge,
        "/api/v1/orders:watch" + query.format(order.user_id),
        **{"last-event-id": begin.removeprefix("id: ")},
    )

    assert begin.startswith("id: ")
    assert order.id in "".join(again)


@pytest.mark.parametrize("query", ["resumeToken={}", "resume_token={}", "resumeToken=", "userId={user}&resumeToken={}"])
def test_a_stream_that_is_opened_again_with_its_first_url_repeats_and_loses_nothing(world: World, query: str) -> None:
    buyer = world.user().id
    with world.edge.http.stream("GET", "/api/v1/orders:watch") as response:
        events = server_sent(response)
        began = next(events)["resumeToken"]
        seen = place_order(world, buyer)
        last = next(each["resumeToken"] for each in events if seen.id in str(each))
    missed = place_order(world, buyer)

    url = "/api/v1/orders:watch?" + query.format(began, user=buyer)
    again = "".join(first_events(world.edge, url, **{"last-event-id": last}))

    assert missed.id in again
    assert seen.id not in again


def test_a_last_event_id_cannot_inject_query_parameters(edge: Edge) -> None:
    outcome = require_clean_error(edge.http.get("/api/v1/orders:watch", headers={"last-event-id": "a&userId=b"}))

    assert outcome.fields == ["resumeToken"]
