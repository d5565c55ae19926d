"""The commands about events: `worker`, which publishes those of notes and follows authors, and `events …`."""

from __future__ import annotations

from typing import Final

from chassis.events.commands import EventCommands
from tests.support.notes_svc import consumer

EVENTS: Final = EventCommands.of("tests.support.notes_svc", handle={"author": consumer.handle})
COMMANDS: Final = EVENTS.commands
