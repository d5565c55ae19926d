"""The services in this process, put together as their `__main__` does it: on a free port, with the clock of a test."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from chassis.auth.access_tokens import TokenSettings
from chassis.auth.certificates import TlsSettings
from chassis.client.breaker import BreakerSettings
from chassis.clock import SystemClock
from chassis.database.settings import DatabaseSettings
from chassis.database.url import DatabaseUrl
from chassis.telemetry.settings import TelemetrySettings
from chassis.testing import server_settings, services_token, serving
from chassis.watch.settings import WatchSettings
from order_svc import composition as order_svc
from order_svc.settings import UserServiceSettings
from user_svc import composition as user_svc
from user_svc.keys import KeySettings
from user_svc.rpc import UserServicer
from user_svc.sessions.service import SessionSettings
from user_svc.settings import PasswordRuleSettings, PasswordSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.clock import Clock
    from chassis.server.application import Application
    from chassis.server.settings import ServerSettings

# The least that argon2 takes: 8 KiB and a tenth of a millisecond, where production takes 46 MiB and a core's 40 ms.
CHEAP = PasswordSettings(memory_kib=8)
NIST = PasswordRuleSettings()

KEY_SETTINGS = KeySettings(secret=SecretStr(base64.urlsafe_b64encode(b"a secret of tests and no others.").decode()))


def database_settings(url: str, **changes: Any) -> DatabaseSettings:
    """Return the settings of the database at the URL."""
    return DatabaseSettings(url=DatabaseUrl.parse(url), **changes)


@contextlib.asynccontextmanager
async def working(application: Application) -> AsyncIterator[None]:
    """Do the work beside the server while the block runs.

    Raises:
        Exception: a part of the work ended with it.
    """
    tasks = [asyncio.create_task(work()) for work in application.background]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for failure in ended:
        if isinstance(failure, Exception):
            raise failure


def common_settings(package: str, database_url: str) -> dict[str, Any]:
    """Return the sections that every service reads to serve, by field, for the service in this package."""
    return {
        "telemetry": TelemetrySettings(service_name=package),
        "server": server_settings(),
        "tokens": TokenSettings(),
        "tls": TlsSettings(),
        "database": database_settings(database_url),
    }


@contextlib.asynccontextmanager
async def serving_application(application: Application) -> AsyncIterator[str]:
    """Serve on a free port and do the work beside the server while the block runs; yield the address."""
    async with working(application), serving(application.server) as address:
        yield address


@contextlib.asynccontextmanager
async def user_service(
    settings: DatabaseSettings,
    *,
    clock: Clock | None = None,
    port: int = 0,
    server: ServerSettings | None = None,
    hashing: PasswordSettings = CHEAP,
    rules: PasswordRuleSettings = NIST,
    signing: KeySettings = KEY_SETTINGS,
    servicer_class: type[UserServicer] = UserServicer,
) -> AsyncIterator[str]:
    """Serve the user service while the block runs; yield its address."""
    whole = user_svc.Settings(
        telemetry=TelemetrySettings(service_name="user_svc"),
        database=settings,
        passwords=hashing,
        rules=rules,
        keys=signing,
        sessions=SessionSettings(),
        server=server or server_settings(),
        tokens=TokenSettings(),
        tls=TlsSettings(),
    )
    building = user_svc.build(whole, clock=clock or SystemClock(), servicer_class=servicer_class)
    async with building as application, working(application), serving(application.server, port=port) as address:
        yield address


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
