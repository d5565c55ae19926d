"""The settings of a service's database."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PlainValidator

from chassis.database.url import DatabaseUrl
from chassis.settings import Constant, Seconds, Section


def _database_url(given: object) -> DatabaseUrl:
    return given if isinstance(given, DatabaseUrl) else DatabaseUrl.parse(str(given))


class DatabaseSettings(Section, env_prefix="DATABASE_"):
    """The service's own PostgreSQL database."""

    url: Annotated[DatabaseUrl, PlainValidator(_database_url)]
    """In any form that libpq reads: `postgresql://user:password@host/users?sslmode=verify-full&sslrootcert=system`. The
    timeouts below overrule those of the URL."""
    direct_url: Annotated[DatabaseUrl, PlainValidator(_database_url)] | None = None
    """The URL of PostgreSQL itself, if `DATABASE_URL` leads through a pooler. Migrations use it: they need a session of
    their own."""
    pool_size: Annotated[int, Field(ge=4, le=100)] = 8
    """Connections of a replica. Replicas times pool size must stay below `max_connections`. One connection each is for
    batches of reads, of new orders and of status changes; all other calls share the rest. A worker has 3,
    one for each resource whose events it reads, and one for each part of its own."""
    read_lanes: Constant[int] = 1
    """Connections for batches of reads. While a batch is read the next one gathers; with two connections each batch
    would be half as long and cost as much."""
    write_lanes: Constant[int] = 1
    """Connections for batches that one statement writes: new orders."""
    transaction_lanes: Constant[int] = 1
    """Connections for batches that take a transaction: status changes."""
    batch_linger_s: Constant[float] = 0.003
    """How long a call waits at most for others to share a statement, while calls are concurrent and the event loop is
    short of CPU: it ran, or waited for a core, for more than half of the last 50 ms. Otherwise no call waits: a batch
    is what arrived while the last statement ran."""
    batch_max_items: Constant[int] = 128
    """Calls in one statement. Longer statements save nothing more, and the first call of a batch waits for the last. At
    most the 200 ids of BatchGetUsers."""
    batch_max_waiting: Constant[int] = 1024
    """Calls that may wait for their turn; further ones are refused with `OVERLOADED`. A replica answers thousands a
    second: behind this many a call would wait for a good part of one."""
    connect_timeout_s: Annotated[int, Field(ge=1, le=30)] = 2
    """How long a call waits for a connection to open before it is refused: an early refusal is better than a queue."""
    statement_timeout_s: Seconds = 5
    """How long one statement may take. It is below the edge's 15 s, so that a stuck statement is an error with a
    reason. If the network is dead or the server stopped, the call ends 1 to 1.5 s later."""
    lock_timeout_s: Seconds = 0.5
    """How long a statement waits for a row lock. A row is locked for one short transaction: a longer wait is a
    fault."""

    @property
    def shared_connections(self) -> int:
        """Connections of the shared pool, which serves everything but batches."""
        return self.pool_size - self.read_lanes - self.write_lanes - self.transaction_lanes

    def for_parts(self, number: int) -> Self:
        """Return the same for a worker: a connection for each of its parts, and one for batches of reads."""
        lanes = {"pool_size": self.read_lanes + number, "write_lanes": 0, "transaction_lanes": 0}
        return self.model_copy(update=lanes)
