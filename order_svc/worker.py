"""The commands about events: `worker`, which publishes orders and follows users, and `events …`."""

from typing import Final

from chassis.events.commands import EventCommands
from order_svc import consumer

EVENTS: Final = EventCommands.of(
    "order_svc", handle={"user": consumer.handle}, parts={"late orders": consumer.look_for_late_orders}
)
COMMANDS: Final = EVENTS.commands
