from __future__ import annotations

from devstack.settings import REPOSITORY
from tests.perf.load import Load
from tests.perf.measure import Sample
from tests.perf.ratios import BOUNDS, GOALS

_VS_EMPTY = next(goal for goal in GOALS if goal.key == "get_user_cpu_vs_empty")


def _samples(*cpu_us: float) -> list[Sample]:
    load = Load(requests=100, failed=0, seconds=1, p50_ms=1, p99_ms=2)
    return [Sample(load, "it", {"it": us, "postgres": 5}) for us in cpu_us]


def test_a_ratio_is_the_median_of_the_rounds_ratios_at_the_worst_concurrency() -> None:
    taken = {
        # In the second round the machine was three times as slow, for both.
        ("GetUser", "shop", 32): _samples(100, 300, 110),
        ("GetUser", "empty", 32): _samples(100, 300, 100),
        ("GetUser", "shop", 128): _samples(120, 130, 140),
        ("GetUser", "empty", 128): _samples(100, 100, 100),
    }

    ratio = _VS_EMPTY.ratio(taken)

    assert ratio == 1.3
    assert not _VS_EMPTY.is_met_by(ratio)
    assert _VS_EMPTY.is_met_by(_VS_EMPTY.bound)


def test_an_unmeasured_value_has_no_ratio() -> None:
    assert _VS_EMPTY.ratio({}) is None


def test_the_keys_of_the_goals_are_those_that_the_documentation_names() -> None:
    named = (REPOSITORY / "docs" / "performance.md").read_text().partition("## What each ratio means")[2]

    assert [bound.key for bound in BOUNDS if f"| {bound.key} |" not in named] == []


def test_the_cpu_of_an_edge_is_that_of_the_system_in_question() -> None:
    load = Load(requests=100, failed=0, seconds=1, p50_ms=1, p99_ms=2)
    # The other edge idles beside it.
    ours = [Sample(load, "shop user_svc", {"bare edge": 2, "shop edge": 230})]
    bare = [Sample(load, "bare edge", {"bare edge": 200, "shop edge": 2})]

    goal = next(goal for goal in GOALS if goal.key == "edge_cpu_vs_transcoder_alone")

    assert goal.ratio({("GET user", "shop", 128): ours, ("GET user", "bare", 128): bare}) == 1.15
