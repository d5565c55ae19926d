from __future__ import annotations

import time
from typing import TYPE_CHECKING

from chassis.clock import new_id

if TYPE_CHECKING:
    from uuid import UUID

    import pytest

_MILLISECOND_NS = 10**6
_HOUR_NS = 3600 * 10**9


def test_ids_are_in_the_order_of_the_clock_also_after_it_was_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    began_ns = time.time_ns()

    def id_after(ns: int) -> UUID:
        monkeypatch.setattr(time, "time_ns", lambda: began_ns + ns)
        return new_id()

    before, ahead, after = id_after(0), id_after(_HOUR_NS), id_after(_MILLISECOND_NS)

    assert before < after < ahead
    assert {each.version for each in (before, ahead, after)} == {7}


def test_ids_of_one_instant_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)

    assert len({new_id() for _ in range(10_000)}) == 10_000
