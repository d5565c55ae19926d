"""How long a failed event waits for its next attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chassis.events.consumer import ConsumerSettings


@given(st.floats(0.01, 60), st.floats(0.01, 3600), st.integers(1, 99))
def test_each_attempt_doubles_the_backoff_up_to_its_maximum(first_s: float, longest_s: float, attempts: int) -> None:
    settings = ConsumerSettings(retry_first_s=first_s, retry_longest_s=longest_s)

    assert settings.pause_s(1) == min(first_s, longest_s)
    assert settings.pause_s(attempts + 1) == min(2 * settings.pause_s(attempts), longest_s)
