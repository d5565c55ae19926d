"""Up to where a consumer believes that everything took effect, and how long a failed event rests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.events.consumer import ConsumerSettings, _position_of
from chassis.events.consumer_group import Look
from chassis.events.inbox import State
from chassis.events.redis_streams import START, EntryId
from tests.support.builders import NOON

READ_UP_TO = EntryId(5, 0)


def a_look(**changes: Any) -> Look:
    known = {"first": EntryId(1, 0), "after": None, "last": EntryId(9, 0), "was_trimmed": False, "pending": 0}
    known |= {"delivered": READ_UP_TO, "read": READ_UP_TO, "confirmed": START, "is_broken": False}
    return Look(**{**known, "watermark": None, "watermark_entry": START, **changes})


def a_state(**changes: Any) -> State:
    return State(**{"position": None, "as_of": None, "is_incomplete": False, "dead_letters": 0, **changes})


def test_the_position_stored_with_the_effects_overrides_redis() -> None:
    assert _position_of(a_look(), a_state(position="3-1", as_of=NOON)) == EntryId(3, 1)


def test_an_unknown_position_means_that_no_event_took_effect() -> None:
    assert _position_of(a_look(), a_state()) == START


@pytest.mark.parametrize(
    ("first", "was_trimmed", "expected"),
    [
        (EntryId(1, 0), False, READ_UP_TO),
        (EntryId(1, 0), True, READ_UP_TO),
        (EntryId(6, 0), False, READ_UP_TO),
        (READ_UP_TO, True, READ_UP_TO),
        (None, True, READ_UP_TO),
        (EntryId(6, 0), True, START),
    ],
)
def test_without_a_stored_position_effects_reach_the_last_read_entry_unless_entries_were_trimmed(
    first: EntryId | None, expected: EntryId, *, was_trimmed: bool
) -> None:
    assert _position_of(a_look(first=first, was_trimmed=was_trimmed), a_state(as_of=NOON)) == expected


@given(st.floats(0.01, 60), st.floats(0.01, 3600), st.integers(1, 99))
def test_each_attempt_doubles_the_backoff_up_to_its_maximum(first_s: float, longest_s: float, attempts: int) -> None:
    settings = ConsumerSettings(retry_first_s=first_s, retry_longest_s=longest_s)

    assert settings.pause_s(1) == min(first_s, longest_s)
    assert settings.pause_s(attempts + 1) == min(2 * settings.pause_s(attempts), longest_s)
