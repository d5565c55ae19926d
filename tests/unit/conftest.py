"""What the unit tests have in common: no sockets, no processes, no waiting."""

from __future__ import annotations

from hypothesis import settings

# No deadline: on a busy machine it fails tests that are right. Derandomised: a red run is red again when repeated.
settings.register_profile("unit", deadline=None, derandomize=True, max_examples=150)
settings.load_profile("unit")
