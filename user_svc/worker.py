"""The commands about events: `worker`, which publishes users and counts orders, and `events …`."""

from typing import Final

from chassis.events.commands import EventCommands
from user_svc import consumer

EVENTS: Final = EventCommands.of("user_svc", handle={"order": consumer.handle})
COMMANDS: Final = EVENTS.commands
