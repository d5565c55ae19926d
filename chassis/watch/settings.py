"""The settings of change streams."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from chassis.settings import Section


class WatchSettings(Section, env_prefix="WATCH_", validate_by_name=True):
    """How changes are delivered to streams."""

    # Seconds between two polls of the changefeed; a change is delivered half of it later on average.
    poll_s: Annotated[float, Field(ge=0.005, le=10)] = 0.1
    # Seconds between two heartbeats. A quarter of the edge's stream_idle_timeout: three in a row may be lost.
    heartbeat_s: Annotated[float, Field(gt=0, le=55, validation_alias="WATCH_SIGN_OF_LIFE_S")] = 15
    # Changes that wait in the buffer of one stream: one second at 1,000 changes a second, the most the database writes.
    buffer: Annotated[int, Field(ge=1, le=100_000)] = 1000
    # Rows that one statement scans, in 1 to 2 ms. A stream that catches up holds one such page in memory.
    page: Annotated[int, Field(ge=1, le=5000)] = 200
    # Streams of one replica: twice what one replica was measured with.
    max_watchers: Annotated[int, Field(ge=1, le=100_000)] = 2000
    # Streams of one user on one replica: more than a person has browser tabs.
    max_of_one_caller: Annotated[int, Field(ge=1)] = 20
