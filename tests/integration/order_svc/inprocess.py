"""The order service in this process, put together as its `__main__` does it: on a free port, with a test's clock."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from chassis.auth.access_tokens import TokenSettings
from chassis.auth.certificates import TlsSettings
from chassis.client.breaker import BreakerSettings
from chassis.clock import SystemClock
from chassis.telemetry.settings import TelemetrySettings
from chassis.testing import server_settings, services_token, serving
from chassis.watch.settings import WatchSettings
from order_svc import composition as order_svc
from order_svc.settings import UserServiceSettings
from tests.integration.inprocess import working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.clock import Clock
    from chassis.database.settings import DatabaseSettings
    from chassis.server.settings import ServerSettings


@contextlib.asynccontextmanager
async def order_service(
    settings: DatabaseSettings,
    *,
    users: str,
    clock: Clock | None = None,
    breaker: BreakerSettings | None = None,
    watching: WatchSettings | None = None,
    server: ServerSettings | None = None,
) -> AsyncIterator[str]:
    """Serve the order service, which asks the user service at the target, while the block runs; yield its address."""
    whole = order_svc.Settings(
        telemetry=TelemetrySettings(service_name="order_svc"),
        server=server or server_settings(),
        tokens=TokenSettings(),
        tls=TlsSettings(),
        database=settings,
        user_service=UserServiceSettings(url=users),
        breaker=breaker or BreakerSettings(),
        watch=watching or WatchSettings(poll_s=0.02, heartbeat_s=0.2),
    )
    building = order_svc.build(whole, clock=clock or SystemClock(), token=services_token)
    async with building as application, working(application), serving(application.server) as address:
        yield address
