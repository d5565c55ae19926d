"""The notes service in this process, put together as its `__main__` does it."""

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
from tests.integration.inprocess import NOTES, TEST_KEY, working
from tests.support.notes_svc.composition import Settings, build
from tests.support.notes_svc.rpc import NoteServicer
from tests.support.notes_svc.settings import KeySettings, LibrarySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.clock import Clock
    from chassis.database.settings import DatabaseSettings
    from chassis.server.settings import ServerSettings


@contextlib.asynccontextmanager
async def notes_service(
    settings: DatabaseSettings,
    *,
    library: str = "",
    clock: Clock | None = None,
    port: int = 0,
    breaker: BreakerSettings | None = None,
    watching: WatchSettings | None = None,
    server: ServerSettings | None = None,
    tls: TlsSettings | None = None,
    servicer_class: type[NoteServicer] = NoteServicer,
) -> AsyncIterator[str]:
    """Serve the notes service while the block runs; yield its address.

    Args:
        settings: of its database.
        library: the target of the notes service that it asks about quoted notes; empty for none.
        clock: tells its time.
        port: on which it serves; 0 for any free one.
        breaker: of the library.
        watching: of its streams.
        server: of its server.
        tls: its certificate, and who may connect; None for clear text.
        servicer_class: answers NoteService.
    """
    whole = Settings(
        telemetry=TelemetrySettings(service_name=NOTES),
        server=server or server_settings(),
        tokens=TokenSettings(),
        tls=tls or TlsSettings(),
        database=settings,
        keys=KeySettings(public_key=TEST_KEY),
        library=LibrarySettings(url=library),
        breaker=breaker or BreakerSettings(),
        watch=watching or WatchSettings(poll_s=0.02, heartbeat_s=0.2),
    )
    building = build(whole, clock=clock or SystemClock(), token=services_token, servicer_class=servicer_class)
    async with building as application, working(application), serving(application.server, port=port) as address:
        yield address
