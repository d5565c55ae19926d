"""A stopping edge waits for calls and not for streams."""

from __future__ import annotations

import pytest

from envoy.in_flight import calls_in_flight


@pytest.mark.parametrize(
    ("stats", "calls"),
    [
        ("", 0),
        ("http.edge.downstream_rq_active: 3\n", 3),
        ("cluster.example_svc_streams.upstream_rq_active: 2\nhttp.edge.downstream_rq_active: 3\n", 1),
        ("cluster.example_svc_streams.upstream_rq_active: 2\nhttp.edge.downstream_rq_active: 2\n", 0),
    ],
)
def test_streams_are_not_waited_for(stats: str, calls: int) -> None:
    assert calls_in_flight(stats) == calls
