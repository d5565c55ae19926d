"""The effects of the events of «cargos»."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis.clock import SystemClock«cargo import»
from chassis.events.outbox import Event, add
from chassis.testing import until
from depot_svc.consumer import handle
from tests.integration.conftest import fresh_database
from tests.integration.event_flow import consumer, opened, relay, running

if TYPE_CHECKING:
    from devstack.postgres import PostgresServer
    from tests.integration.conftest import TestDatabase


async def test_what_last_happened_is_known(
    postgres: PostgresServer, depot_database: TestDatabase, redis_url: str
) -> None:
    subject = «cargo subject»
    with fresh_database(postgres, "«cargo service»") as source:
        async with (
            opened(source.url) as outbox,
            relay(source.url, redis=redis_url, resource="cargo") as publisher,
            consumer(depot_database.url, handle, redis=redis_url, resource="cargo") as reader,
            running(publisher.run, reader.run),
        ):
            for sequence, kind in enumerate(["cargo.created", "cargo.updated"], start=1):
                event = Event(kind, subject, sequence, {}, SystemClock().now())
                await outbox.transaction(lambda connection, event=event: add(connection, [event]))

            async def is_known() -> bool:
                return depot_database.query("SELECT id, last_event FROM known_cargos") == [(subject, "cargo.updated")]

            await until(is_known)
