"""An interrupted run continues where it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.perf import progress
from tests.perf.cpu import Meter
from tests.perf.load import Load
from tests.perf.measure import Case, Pace, Sample, Samples
from tests.perf.progress import Kept, Progress

if TYPE_CHECKING:
    from pathlib import Path

_PACE = Pace(rounds=2, seconds=1)
_KEY = ("GET user", "shop", 32)


class Interrupted(Exception):
    """Ctrl-C."""


class Calls:
    """Load that answers at once, a number of times; then it is interrupted."""

    def __init__(self, until_interrupted: int = 1000) -> None:
        self.left = until_interrupted
        self.made = 0

    def run(self, *, concurrency: int, seconds: float) -> Load:
        if self.left == 0:
            raise Interrupted
        self.left -= 1
        self.made += 1
        return Load(requests=concurrency, failed=0, seconds=seconds, p50_ms=1, p99_ms=2)


def _samples(of: Progress) -> Samples:
    return Samples(Meter(), is_quick=True, report=lambda _: None, taken=of.taken)


def _cases(ours: Calls, theirs: Calls) -> list[Case[Calls]]:
    return [Case("GET user", "shop", ours, "it"), Case("GET user", "express", theirs, "it")]


def test_a_complete_measurement_is_not_repeated() -> None:
    so_far = Progress()
    _samples(so_far).take(_cases(Calls(), Calls()), concurrency=32, pace=_PACE)
    ours, theirs = Calls(), Calls()

    _samples(so_far).take(_cases(ours, theirs), concurrency=32, pace=_PACE)

    assert (ours.made, theirs.made) == (0, 0)
    assert {key: len(samples) for key, samples in so_far.taken.items()} == {_KEY: 2, ("GET user", "express", 32): 2}


def test_a_round_that_was_interrupted_is_repeated_as_a_whole() -> None:
    so_far = Progress()
    with pytest.raises(Interrupted):
        # Each warms up and has its first sample; in the second round only one of them has another.
        _samples(so_far).take(_cases(Calls(), Calls(until_interrupted=2)), concurrency=32, pace=_PACE)
    first = so_far.taken[_KEY][0]
    ours, theirs = Calls(), Calls()

    _samples(so_far).take(_cases(ours, theirs), concurrency=32, pace=_PACE)

    assert (ours.made, theirs.made) == (2, 2)  # a warm-up and the second round
    assert [len(samples) for samples in so_far.taken.values()] == [2, 2]
    assert so_far.taken[_KEY][0] is first


def test_progress_survives_in_its_file(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "progress.json", is_quick=True, report=print)
    load = Load(requests=100, failed=0, seconds=1, p50_ms=1, p99_ms=2, p999_ms=3)
    kept.progress.taken[_KEY] = [Sample(load, "it", {"it": 7.0})]
    kept.progress.singles["rss_mb_all"] = 700.0
    kept.save()

    found = Kept(tmp_path / "progress.json", is_quick=True, report=print).progress

    assert found.taken == kept.progress.taken
    assert found.singles == {"rss_mb_all": 700.0}


def test_a_run_of_other_code_or_another_kind_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "progress.json"
    kept = Kept(file, is_quick=True, report=print)
    kept.progress.singles["rss_mb_all"] = 700.0
    kept.save()

    assert Kept(file, is_quick=False, report=print).progress.singles == {}
    monkeypatch.setattr(progress, "_digest_of_code", lambda: "another")
    assert Kept(file, is_quick=True, report=print).progress.singles == {}
