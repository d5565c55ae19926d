"""The commands about events: `worker`, which publishes those of «parcels», and `events …`."""

from __future__ import annotations

from typing import Final

from chassis.events.commands import EventCommands
# [reads]
from depot_svc import consumer
# [end]

# [reads]
EVENTS: Final = EventCommands.of("depot_svc", handle=consumer.handle)
# [end]
# [reads nothing]
EVENTS: Final = EventCommands.of("depot_svc")
# [end]
COMMANDS: Final = EVENTS.commands
