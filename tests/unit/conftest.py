"""Settings of the unit tests, which use no sockets and no processes, and do not wait."""

from __future__ import annotations

from hypothesis import settings

# No deadline: on a busy machine it fails tests that are right. Derandomised: a red run is red again when repeated.
settings.register_profile("unit", deadline=None, derandomize=True, max_examples=150)
settings.load_profile("unit")
