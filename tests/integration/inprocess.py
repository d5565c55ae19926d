"""A service in this process, put together as its `__main__` does it: on a free port, with the clock of a test."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any, Final

from chassis.auth.access_tokens import TokenSettings
from chassis.auth.certificates import TlsSettings
from chassis.database.settings import DatabaseSettings
from chassis.database.url import DatabaseUrl
from chassis.telemetry.settings import TelemetrySettings
from chassis.testing import SIGNER, server_settings, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.server.application import Application

NOTES: Final = "notes_svc"
"""The database of the service on which the chassis is tested, migrated, to be copied."""
NOTES_PACKAGE: Final = "tests.support.notes_svc"

# With which a service seals its keys.
SECRET: Final = base64.urlsafe_b64encode(b"a secret of tests and no others.").decode()
TEST_KEY: Final = base64.urlsafe_b64encode(SIGNER.private.public_key().public_bytes_raw()).decode().rstrip("=")
"""The public key of the tokens of tests, as a JWK has it."""


def database_settings(url: str, *, lock_timeout_s: float = 4, **changes: Any) -> DatabaseSettings:
    """Return the settings of the database at the URL.

    On a busy machine this process may stand still for longer than a service waits for a lock, with the lock in a thread
    of its own.
    """
    return DatabaseSettings(url=DatabaseUrl.parse(url), lock_timeout_s=lock_timeout_s, **changes)


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
