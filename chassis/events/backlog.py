"""The backlog of the outbox as metrics: how many events are unpublished, how old the oldest is, how large the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from chassis.runtime.periodic import Failures, every
from chassis.telemetry.metrics.events import outbox_looked_at

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from chassis.database import Database

# Prometheus' scrape interval. The query is cheap: it reads the index of unpublished events, which a relay keeps short,
# and file sizes.
_EVERY_S: Final = 15.0

_backlog = text("""
    SELECT
        count(*) AS unpublished,
        coalesce(extract(epoch FROM now() - min(occurred_at)), 0) AS oldest_age_s,
        pg_total_relation_size('outbox') AS size_bytes
    FROM outbox
    WHERE published_at IS NULL
""")


async def watch_forever(database: Database, *, every_s: float = _EVERY_S) -> None:
    """Update the metrics of the outbox's backlog and size every `every_s`, until cancelled."""

    def look(connection: Connection) -> tuple[int, float, int]:
        row = connection.execute(_backlog).one()
        return int(row.unpublished), float(row.oldest_age_s), int(row.size_bytes)

    async def update_metrics() -> None:
        unpublished, oldest_age_s, size_bytes = await database.read(look)
        outbox_looked_at(unpublished=unpublished, oldest_age_s=oldest_age_s, size_bytes=size_bytes)

    failures = Failures(failed="outbox.watch_failed", recovered="outbox.watch_recovered")
    await every(every_s, update_metrics, failures=failures)
