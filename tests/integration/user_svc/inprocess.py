"""The user service in this process, put together as its `__main__` does it: on a free port, with a test's clock."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pydantic import SecretStr

from chassis.auth.access_tokens import TokenSettings
from chassis.auth.certificates import TlsSettings
from chassis.clock import SystemClock
from chassis.telemetry.settings import TelemetrySettings
from chassis.testing import server_settings, serving
from tests.integration.inprocess import SECRET, working
from user_svc import composition as user_svc
from user_svc.keys import KeySettings
from user_svc.rpc import UserServicer
from user_svc.sessions.service import SessionSettings
from user_svc.settings import PasswordRuleSettings, PasswordSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.clock import Clock
    from chassis.database.settings import DatabaseSettings
    from chassis.server.settings import ServerSettings

# The least that argon2 takes: 8 KiB and a tenth of a millisecond, where production takes 46 MiB and a core's 40 ms.
CHEAP = PasswordSettings(memory_kib=8)
NIST = PasswordRuleSettings()

KEY_SETTINGS = KeySettings(secret=SecretStr(SECRET))


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
