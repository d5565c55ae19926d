"""The settings of change streams."""

from typing import Annotated

from pydantic import Field

from chassis.settings import Constant, Section


class WatchSettings(Section, env_prefix="WATCH_", validate_by_name=True):
    """How changes are delivered to streams."""

    poll_s: Constant[float] = 0.1
    """How often a replica polls its database for changes; on average a change is delivered half of it later."""
    heartbeat_s: Annotated[float, Field(gt=0, le=55, validation_alias="WATCH_SIGN_OF_LIFE_S")] = 15
    """The time between two heartbeats of a stream: a quarter of the edge's 60 s for idle streams, so three may be lost
    on the way. Set it lower if a proxy in between closes idle streams sooner."""
    buffer: Constant[int] = 1000
    """Changes that wait for one stream; a slower reader gets `STREAM_TOO_SLOW`. The database writes some 1,000 changes
    a second."""
    page: Constant[int] = 200
    """Rows that one statement scans, in a millisecond or two. Each stream that catches up holds at most one page."""
    max_watchers: Annotated[int, Field(ge=1, le=100_000)] = 2000
    """Streams of a replica; further ones are refused with `OVERLOADED`. Twice what one replica was measured with."""
    max_of_one_caller: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Streams of one user at one replica; further ones are refused with `OVERLOADED`. More than a person has browser
    tabs."""
