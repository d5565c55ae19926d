"""A write that is sent twice takes effect once.

The key of a request is a row, written in the transaction of its effect and holding its answer. Who comes second with
the same key waits for that transaction, then gets its answer. Keys live for 24 hours, per caller and method.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    delete,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from chassis import metrics
from chassis.errors import DatabaseUnavailable, RequestIdReused

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from pydantic import TypeAdapter

    from chassis.clock import Clock
    from chassis.db import Database

T = TypeVar("T")

log = structlog.get_logger(__name__)

KEPT: Final = timedelta(hours=24)

# The first version of the table, for a service's migration. A later change is another constant, never an edit.
DDL_V1: Final = """
CREATE TABLE idempotency_keys (
    caller text NOT NULL,
    method text NOT NULL,
    request_id uuid NOT NULL,
    fingerprint bytea NOT NULL,
    resource_id uuid,
    response bytea,
    created_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (caller, method, request_id)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_resource_id_idx ON idempotency_keys (resource_id);
"""

_keys = Table(
    "idempotency_keys",
    MetaData(),
    Column("caller", Text, primary_key=True),
    Column("method", Text, primary_key=True),
    Column("request_id", Uuid, primary_key=True),
    Column("fingerprint", LargeBinary),
    Column("resource_id", Uuid),
    Column("response", LargeBinary),
    Column("created_at", DateTime(timezone=True)),
)

_is_this_key = (
    (_keys.c.caller == bindparam("key_caller"))
    & (_keys.c.method == bindparam("key_method"))
    & (_keys.c.request_id == bindparam("key_request_id"))
)
_find = select(_keys.c.fingerprint, _keys.c.response).where(_is_this_key, _keys.c.created_at >= bindparam("oldest"))
_complete = (
    update(_keys)
    .where(_is_this_key)
    .values(resource_id=bindparam("key_resource_id"), response=bindparam("key_response"))
)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What makes two requests the same request.

    Attributes:
        caller: the subject of the caller; empty for nobody in particular.
        method: `/package.Service/Method`.
        request_id: the caller's id of the request.
        fingerprint: a digest of the request's content, without secrets and without the id.
    """

    caller: str
    method: str
    request_id: UUID
    fingerprint: bytes

    def parameters(self) -> dict[str, object]:
        """Return the key's columns as bind parameters."""
        return {
            "key_caller": self.caller,
            "key_method": self.method,
            "key_request_id": self.request_id,
        }


@dataclass(frozen=True, slots=True)
class Once:
    """One request, to take effect once.

    Attributes:
        key: its key, or None when the caller gave none: then nothing can be remembered.
        now: the time of the request, aware.
    """

    key: RequestKey | None
    now: datetime

    def run(
        self,
        connection: Connection,
        action: Callable[[], T],
        *,
        snapshot: TypeAdapter[T],
        resource_id: Callable[[T], UUID],
    ) -> T:
        """Return the action's result; of an earlier request with this key, if there was one, instead.

        Runs in the action's transaction. Concurrent requests with one key wait here for the first to commit.

        Args:
            connection: inside the transaction.
            action: the effect. If it raises, the key stays unused.
            snapshot: how a result is kept.
            resource_id: whose personal data a result may hold; forget() finds it by this.

        Raises:
            RequestIdReused: the key was used with other content.
        """
        if self.key is None:
            return action()
        if not self._claim(connection, self.key):
            found = self.find(connection, snapshot=snapshot)
            if found is None:
                # Removed between the two statements, by its expiry or with its user.
                raise DatabaseUnavailable
            metrics.write_replayed(self.key.method)
            return found
        result = action()
        connection.execute(
            _complete,
            {
                **self.key.parameters(),
                "key_resource_id": resource_id(result),
                "key_response": snapshot.dump_json(result),
            },
        )
        return result

    def find(self, connection: Connection, *, snapshot: TypeAdapter[T]) -> T | None:
        """Return the result of an earlier request with this key, or None.

        Raises:
            RequestIdReused: the key was used with other content.
        """
        if self.key is None:
            return None
        row = connection.execute(_find, {**self.key.parameters(), "oldest": self.now - KEPT}).one_or_none()
        if row is None:
            return None
        if row.fingerprint != self.key.fingerprint:
            raise RequestIdReused(str(self.key.request_id))
        return snapshot.validate_json(row.response)

    def _claim(self, connection: Connection, key: RequestKey) -> bool:
        """Return whether the key is ours now. An expired one is taken over."""
        statement = insert(_keys).values(
            caller=key.caller,
            method=key.method,
            request_id=key.request_id,
            fingerprint=key.fingerprint,
            created_at=self.now,
        )
        statement = statement.on_conflict_do_update(
            constraint="idempotency_keys_pkey",
            set_={
                "fingerprint": statement.excluded.fingerprint,
                "created_at": statement.excluded.created_at,
            },
            where=_keys.c.created_at < self.now - KEPT,
        )
        claimed = connection.execute(statement.returning(_keys.c.request_id))
        return claimed.one_or_none() is not None


def forget(connection: Connection, resource_id: UUID) -> None:
    """Remove every kept answer about a resource, so that nothing personal outlives it."""
    connection.execute(delete(_keys).where(_keys.c.resource_id == resource_id))


async def sweep_forever(database: Database, clock: Clock, *, every_s: float = 600) -> None:
    """Remove expired keys, in small batches, until cancelled.

    Every replica does it; SKIP LOCKED keeps them out of each other's way.
    """
    batch = text("""
        DELETE FROM idempotency_keys
        WHERE ctid = ANY (ARRAY (
            SELECT ctid
            FROM idempotency_keys
            WHERE created_at < :oldest
            LIMIT 1000
            FOR UPDATE SKIP LOCKED
        ))
    """)

    def remove_some(connection: Connection) -> int:
        return connection.execute(batch, {"oldest": clock.now() - KEPT}).rowcount

    while True:
        await asyncio.sleep(every_s)
        try:
            while await database.transaction(remove_some):
                pass
        except Exception as error:
            log.warning("idempotency.sweep_failed", exc_info=error)
