from __future__ import annotations

from tests.perf.load import Load
from tests.perf.measure import Sample
from tests.perf.ratios import GOALS

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
    assert _VS_EMPTY.is_met_by(ratio)


def test_an_unmeasured_value_has_no_ratio() -> None:
    assert _VS_EMPTY.ratio({}) is None
