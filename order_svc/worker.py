"""The commands about events: `worker`, which publishes orders and follows users, and `events …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chassis.events.commands import EventCommands
from chassis.settings import load
from order_svc import consumer
from order_svc.settings import OrderTelemetrySettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chassis.runtime.cli import Command

EVENTS: Final = EventCommands(
    telemetry=lambda: load(OrderTelemetrySettings),
    publishes="order",
    reads="user",
    handle=consumer.handle,
    parts={"late orders": consumer.look_for_late_orders},
)
COMMANDS: Final[Mapping[str, Command]] = EVENTS.commands
