"""The commands of every service that need the whole of it: `serve` and `migrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from chassis import telemetry
from chassis.composition import ServiceSettings
from chassis.database.settings import DatabaseSettings
from chassis.settings import load, load_sections

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from chassis.runtime.cli import Command
    from chassis.server.application import Application

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def serving_commands(
    package: str, settings: type[SettingsT], build: Callable[[SettingsT], AbstractAsyncContextManager[Application]]
) -> dict[str, Command]:
    """Return the commands of the service in this package, which `build` puts together from these settings."""

    async def serve() -> None:
        """Serve calls until SIGTERM or SIGINT."""
        read = load_sections(settings)
        with telemetry.running(read.telemetry, command="serve"):
            async with build(read) as application:
                await application.run()

    def migrate() -> None:
        """Bring the database to the newest version."""
        from chassis.database import migrations  # noqa: PLC0415  Alembic: a server has no use for its 11 MB and 0.2 s

        migrations.upgrade(package, load(DatabaseSettings))

    return {"serve": serve, "migrate": migrate}
