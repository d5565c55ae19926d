"""Makes Python work under libfaketime 0.9.10, which refuses the call that time.sleep() makes (EINVAL)."""

from __future__ import annotations

import select
import time


def _sleep(seconds: float) -> None:
    select.select((), (), (), seconds)


time.sleep = _sleep
