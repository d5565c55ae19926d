"""The commands about events: `worker`, which publishes those of «parcels», and `events …`."""

from typing import Final

from chassis.events.commands import EventCommands
# [reads]
from depot_svc import consumer
# [end]

# [reads]
EVENTS: Final = EventCommands.of(
    "depot_svc",
    handle={
        # [end]
        # [each read]
        "cargo": consumer.apply_cargos,
        # [end]
        # [reads]
    },
)
# [end]
# [reads nothing]
EVENTS: Final = EventCommands.of("depot_svc")
# [end]
COMMANDS: Final = EVENTS.commands
