"""`python -m order_svc serve | migrate | relay | consume | events …`: reads the settings and runs the service."""

from __future__ import annotations

from functools import partial

from chassis import telemetry
from chassis.database import migrations
from chassis.database.settings import DatabaseSettings
from chassis.events.commands import EventCommands
from chassis.runtime import cli
from chassis.settings import load, load_sections
from order_svc import consumer
from order_svc.composition import Settings, build
from order_svc.settings import OrderTelemetrySettings


async def serve() -> None:
    """Serve calls until SIGTERM or SIGINT."""
    settings = load_sections(Settings)
    with telemetry.running(settings.telemetry, command="serve"):
        async with build(settings) as application:
            await application.run()


def migrate() -> None:
    """Bring the database to the newest version."""
    migrations.upgrade("order_svc", load(DatabaseSettings))


EVENTS = EventCommands(
    telemetry=lambda: load(OrderTelemetrySettings),
    publishes="order",
    reads="user",
    handle=consumer.handle,
    parts=lambda database: [partial(consumer.look_for_late_orders, database)],
)

if __name__ == "__main__":
    cli.main("order_svc", {"serve": serve, "migrate": migrate, **EVENTS.commands})
