"""Calls, times and ids with defaults, so that a test shows only the values that matter to it.

Those of a service's domain are in its `tests/services/<service>/builders.py`; messages to send are in `requests.py`.
"""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from chassis.context import Call

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOME_ID: Final = "01960000-0000-7000-8000-000000000001"
OTHER_ID: Final = "01960000-0000-7000-8000-000000000002"

# Ids sort by time: these are of rows with a neighbour on both sides.
BEFORE, OURS, AFTER = ALL = tuple(UUID(int=n) for n in (1, 2, 3))


def a_call(**changes: Any) -> Call:
    call = Call(method="/notes.v1.NoteService/CreateNote", deadline=time.monotonic() + 30)
    return dataclasses.replace(call, **changes)
