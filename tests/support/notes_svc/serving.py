"""The commands that need the whole service: `serve`, `migrate`."""

from __future__ import annotations

from typing import Final

from chassis.serving import serving_commands
from tests.support.notes_svc.composition import Settings, build

COMMANDS: Final = serving_commands("tests.support.notes_svc", Settings, build)
