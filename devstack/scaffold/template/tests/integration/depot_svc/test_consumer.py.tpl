"""The effects of the events of «all cargos»."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis.clock import SystemClock«import of ids»
from chassis.events.outbox import Event, add
from chassis.testing import until
from depot_svc import consumer as effects
from tests.integration.databases import fresh_database
from tests.integration.event_flow import consumer, opened, relay, running

if TYPE_CHECKING:
    from devstack.postgres import PostgresServer
    from tests.integration.databases import TestDatabase


# [each read]
async def test_what_last_happened_to_cargos_is_known(
    postgres: PostgresServer, parcels_database: TestDatabase, redis_url: str
) -> None:
    subject = «cargo subject»
    with fresh_database(postgres, "«cargo service»") as source:
        async with (
            opened(source.url) as outbox,
            relay(source.url, redis=redis_url, resource="cargo") as publisher,
            consumer(parcels_database.url, effects.apply_cargos, redis=redis_url, resource="cargo") as reader,
            running(publisher.run, reader.run),
        ):
            for sequence, kind in enumerate(["cargo.created", "cargo.updated"], start=1):
                event = Event(kind, subject, sequence, {}, SystemClock().now())
                await outbox.transaction(lambda connection, event=event: add(connection, [event]))

            async def is_known() -> bool:
                return parcels_database.query("SELECT id, last_event FROM known_cargos") == [(subject, "cargo.updated")]

            await until(is_known)
# [end]
