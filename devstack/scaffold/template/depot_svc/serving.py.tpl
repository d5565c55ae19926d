"""The commands that need the whole service: `serve`, `migrate`."""

from typing import Final

from chassis.serving import serving_commands
from depot_svc.composition import Settings, build

COMMANDS: Final = serving_commands("depot_svc", Settings, build)
