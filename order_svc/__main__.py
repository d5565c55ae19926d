"""`python -m order_svc serve | migrate | relay | consume | events …`: reads the settings and runs the service."""

from __future__ import annotations

from functools import partial

from chassis import telemetry
from chassis.auth.access_tokens import TokenSettings
from chassis.auth.certificates import TlsSettings
from chassis.client.breaker import BreakerSettings
from chassis.database import migrations
from chassis.database.settings import DatabaseSettings
from chassis.events.commands import EventCommands
from chassis.runtime import cli
from chassis.server.settings import ServerSettings
from chassis.settings import load
from chassis.watch.settings import WatchSettings
from order_svc import consumer
from order_svc.composition import Settings, build
from order_svc.settings import OrderTelemetrySettings, UserServiceSettings


async def serve() -> None:
    """Serve calls until SIGTERM or SIGINT."""
    settings = Settings(
        telemetry=load(OrderTelemetrySettings),
        server=load(ServerSettings),
        tokens=load(TokenSettings),
        tls=load(TlsSettings),
        database=load(DatabaseSettings),
        user_service=load(UserServiceSettings),
        breaker=load(BreakerSettings),
        watch=load(WatchSettings),
    )
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
