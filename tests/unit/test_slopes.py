from __future__ import annotations

import random

import pytest

from tests.chaos.slopes import FEWEST, slope_of


def test_a_leak_is_found_under_noise_and_outliers() -> None:
    noise = random.Random(1)
    points = [(float(n), 3.0 * n + noise.gauss(0, 5) + (500 if n % 10 == 0 else 0)) for n in range(50)]

    slope = slope_of(points)

    assert slope.low < 3 < slope.high
    assert 2.5 < slope.low < slope.high < 3.5


def test_noise_alone_is_no_growth() -> None:
    found = [
        slope_of([(float(n), random.Random(100 * seed + n).gauss(0, 5)) for n in range(50)]) for seed in range(100)
    ]

    # 95 of 100 by the definition of the interval.
    assert sum(slope.low <= 0 <= slope.high for slope in found) >= 90


def test_what_never_changes_has_an_interval_of_nothing() -> None:
    slope = slope_of([(float(n), 7.0) for n in range(20)])

    assert (slope.low, slope.middle, slope.high) == (0, 0, 0)


def test_few_points_say_nothing() -> None:
    with pytest.raises(ValueError, match="say nothing"):
        slope_of([(float(n), float(n)) for n in range(FEWEST - 1)])
