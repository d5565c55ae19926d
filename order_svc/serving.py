"""The commands that need the whole service: `serve`, `migrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chassis import telemetry
from chassis.database import migrations
from chassis.database.settings import DatabaseSettings
from chassis.settings import load, load_sections
from order_svc.composition import Settings, build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chassis.runtime.cli import Command


async def serve() -> None:
    """Serve calls until SIGTERM or SIGINT."""
    settings = load_sections(Settings)
    with telemetry.running(settings.telemetry, command="serve"):
        async with build(settings) as application:
            await application.run()


def migrate() -> None:
    """Bring the database to the newest version."""
    migrations.upgrade("order_svc", load(DatabaseSettings))


COMMANDS: Final[Mapping[str, Command]] = {"serve": serve, "migrate": migrate}
