"""The commands about events: `worker`, which publishes users and counts orders, and `events …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chassis.events.commands import EventCommands
from chassis.settings import load
from user_svc import consumer
from user_svc.settings import UserTelemetrySettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chassis.runtime.cli import Command

EVENTS: Final = EventCommands(
    telemetry=lambda: load(UserTelemetrySettings), publishes="user", reads="order", handle=consumer.handle
)
COMMANDS: Final[Mapping[str, Command]] = EVENTS.commands
