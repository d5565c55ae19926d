"""The settings of a service's database."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PlainValidator, model_validator

from chassis.database.url import DatabaseUrl
from chassis.settings import Seconds, Section


def _database_url(given: object) -> DatabaseUrl:
    return given if isinstance(given, DatabaseUrl) else DatabaseUrl.parse(str(given))


class DatabaseSettings(Section, env_prefix="DATABASE_"):
    """The service's own PostgreSQL database."""

    # In any form that libpq reads; what it says of the timeouts below is overruled.
    url: Annotated[DatabaseUrl, PlainValidator(_database_url)]
    # For migrations, which need a session of their own, if `url` leads through a pooler.
    direct_url: Annotated[DatabaseUrl, PlainValidator(_database_url)] | None = None
    # Connections. replicas x pool_size must stay below max_connections.
    pool_size: Annotated[int, Field(ge=4, le=100)] = 8
    # Of these, for batches of reads. One: while a batch is read the next one gathers, and with two each would be half
    # as long and cost as much.
    read_lanes: Annotated[int, Field(ge=1, le=50)] = 1
    # Of these, for batches that one statement writes: new orders.
    write_lanes: Annotated[int, Field(ge=1, le=50)] = 1
    # Of these, for batches that take a transaction: orders that move.
    transaction_lanes: Annotated[int, Field(ge=1, le=50)] = 1
    # How long a call waits at most for others once calls come in company; a call that comes alone never waits.
    batch_linger_s: Annotated[float, Field(ge=0, le=0.1)] = 0.003
    # Longer statements save nothing more, and the first of a batch waits for the last. At most the 200 ids of
    # BatchGetUsers.
    batch_max_items: Annotated[int, Field(ge=1, le=200)] = 128
    # Calls that may wait for their turn. A replica does thousands in a second: who is behind so many waits a good part
    # of one, and had better go elsewhere.
    batch_max_waiting: Annotated[int, Field(ge=1, le=100_000)] = 1024
    # How long a call waits for a connection to be opened before it is refused.
    connect_timeout_s: Annotated[int, Field(ge=1, le=30)] = 2
    # Below the edge's timeout of 15 s, so that a stuck statement is an error with a reason.
    statement_timeout_s: Seconds = 5
    # A row is locked for one short transaction; who waits longer than this waits for a fault.
    lock_timeout_s: Seconds = 0.5

    @property
    def slow_lanes(self) -> int:
        """How many connections are left for everything that is no batch."""
        return self.pool_size - self.read_lanes - self.write_lanes - self.transaction_lanes

    @model_validator(mode="after")
    def _leave_some_for_the_rest(self) -> Self:
        if self.slow_lanes < 1:
            raise ValueError("POOL_SIZE must be larger than READ_LANES, WRITE_LANES and TRANSACTION_LANES together")
        return self
