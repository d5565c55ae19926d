"""A write that is sent twice takes effect once.

The key of a request is a row, written in the transaction of its effect and holding its answer. Who comes second with
the same key waits for that transaction, then gets its answer. Keys live for 24 hours, per caller and method. An answer
that is erased before, with the personal data in it, leaves its key: a late repetition is refused, and not done again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

import structlog
from sqlalchemy import text

from chassis.database.database import as_json, execute
from chassis.errors import AnswerErased, DatabaseUnavailable, RequestIdReused
from chassis.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from pydantic import TypeAdapter
    from sqlalchemy import Connection, Row

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.database.statement_pool import Fetch, Rows

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

# For a statement that claims keys together with the effects of their requests: the columns that Once.row() fills, and
# the claim, from a query named `claims`. It returns the keys that are ours now; an expired one is taken over.
COLUMNS: Final = """
    key_caller text, key_method text, key_request_id uuid, key_fingerprint text, key_created_at timestamptz,
    key_resource_id uuid, key_response text
"""
# In the order of the keys: two transactions that claim the same ones then cannot wait for each other.
CLAIM: Final = f"""
    INSERT INTO idempotency_keys AS kept
        (caller, method, request_id, fingerprint, resource_id, response, created_at)
    SELECT
        key_caller, key_method, key_request_id, decode(key_fingerprint, 'hex'),
        key_resource_id, convert_to(key_response, 'UTF8'), key_created_at
    FROM claims
    WHERE key_request_id IS NOT NULL
    ORDER BY key_caller, key_method, key_request_id
    ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO UPDATE
    SET
        fingerprint = excluded.fingerprint,
        resource_id = excluded.resource_id,
        response = excluded.response,
        created_at = excluded.created_at
    WHERE kept.created_at < excluded.created_at - interval '{KEPT.total_seconds():.0f} seconds'
    RETURNING kept.caller, kept.method, kept.request_id
"""  # noqa: S608  put together from constants
_GIVEN: Final = f"SELECT * FROM json_to_recordset(CAST(%s AS json)) AS given ({COLUMNS})"  # noqa: S608  a constant
_IS_GIVEN: Final = """
    kept.caller = given.key_caller AND kept.method = given.key_method AND kept.request_id = given.key_request_id
"""

_CLAIM: Final = f"WITH claims AS ({_GIVEN}) {CLAIM}"
_FIND: Final = f"""
    WITH given AS ({_GIVEN})
    SELECT kept.caller, kept.method, kept.request_id, kept.fingerprint, kept.response, kept.created_at
    FROM given
    JOIN idempotency_keys AS kept ON {_IS_GIVEN}
"""  # noqa: S608  put together from constants
_COMPLETE: Final = f"""
    WITH given AS ({_GIVEN})
    UPDATE idempotency_keys AS kept
    SET resource_id = given.key_resource_id, response = convert_to(given.key_response, 'UTF8')
    FROM given
    WHERE {_IS_GIVEN}
"""  # noqa: S608  put together from constants
# Not a DELETE: the key would be free, and a late duplicate of CreateUser would bring the erased data back. Without the
# fingerprint too, for it is a digest of that data, and names and emails can be guessed.
_erase = text("UPDATE idempotency_keys SET response = NULL, fingerprint = '' WHERE resource_id = ANY (:resource_ids)")
_RELEASE: Final = f"""
    WITH given AS ({_GIVEN})
    DELETE FROM idempotency_keys AS kept
    USING given
    WHERE {_IS_GIVEN}
"""  # noqa: S608  put together from constants


# Of one request: caller, method and request id.
Identity: TypeAlias = "tuple[str, str, UUID]"


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

    @property
    def identity(self) -> Identity:
        """What there can be one request of."""
        return self.caller, self.method, self.request_id


@dataclass(frozen=True, slots=True)
class Once:
    """One request, to take effect once.

    Attributes:
        key: its key, or None when the caller gave none: then nothing can be remembered.
        now: the time of the request, aware.
    """

    key: RequestKey | None
    now: datetime

    def is_in(self, ours: Collection[Identity]) -> bool:
        """Return whether the request may take effect: its key is among these, or it has none."""
        return self.key is None or self.key.identity in ours

    def row(self, *, resource_id: UUID | None = None, response: bytes | None = None) -> dict[str, object]:
        """Return the key as COLUMNS has it, with the answer that it is to hold."""
        key = self.key
        return {
            "key_caller": key and key.caller,
            "key_method": key and key.method,
            "key_request_id": key and key.request_id,
            "key_fingerprint": key and key.fingerprint.hex(),
            "key_created_at": self.now,
            "key_resource_id": resource_id,
            "key_response": response and response.decode(),
        }

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
            AnswerErased: the result is erased.
        """
        if self.key is not None and not claim(connection, [self]):
            found = self.find(connection, snapshot=snapshot)
            if found is None:
                # Cannot be: the claim has locked the row that it did not get.
                raise DatabaseUnavailable
            return found
        result = action()
        complete(connection, [Answered(self, resource_id(result), snapshot.dump_json(result))])
        return result

    def find(self, connection: Connection, *, snapshot: TypeAdapter[T]) -> T | None:
        """Return the result of an earlier request with this key, or None.

        Raises:
            RequestIdReused: the key was used with other content.
            AnswerErased: the result is erased.
        """
        [found] = find(connection, [self], snapshot=snapshot)
        if isinstance(found, RequestIdReused):
            raise found
        return found


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request was answered; `resource_id` as in Once.run()."""

    once: Once
    resource_id: UUID
    response: bytes


class Keyed(Protocol):
    """Something that belongs to a request."""

    @property
    def once(self) -> Once:
        """The request."""


_Keyed = TypeVar("_Keyed", bound=Keyed)


def first_of_each_key(requests: Sequence[_Keyed]) -> Mapping[int, _Keyed]:
    """Return by their number those requests of which no earlier one has the same key."""
    first: dict[Identity | int, int] = {}
    for n, each in enumerate(requests):
        first.setdefault(each.once.key.identity if each.once.key else n, n)
    return {n: requests[n] for n in first.values()}


def claim(connection: Connection, requests: Sequence[Once]) -> set[Identity]:
    """Return the identities of the keys that are ours now, out of requests with different keys, or none.

    Waits for transactions that have claimed one of them.
    """
    rows = [once.row() for once in requests if once.key]
    return {(caller, method, request_id) for caller, method, request_id in map(tuple, _run(connection, _CLAIM, rows))}


def find(
    connection: Connection, requests: Sequence[Once], *, snapshot: TypeAdapter[T]
) -> list[T | RequestIdReused | None]:
    """Return for each request the result of an earlier one with its key, or None.

    RequestIdReused, if the key was used with other content; AnswerErased, which is one too, if the result is erased.
    """
    rows = _run(connection, _FIND, [once.row() for once in requests if once.key])
    return _answers(requests, rows, snapshot=snapshot)


async def look_up(
    fetch: Fetch, requests: Sequence[Once], *, snapshot: TypeAdapter[T]
) -> list[T | RequestIdReused | None]:
    """Return what find() does, outside of a transaction."""
    keys = [once.row() for once in requests if once.key]
    rows = await fetch(_FIND, as_json(keys)) if keys else ()
    return _answers(requests, rows, snapshot=snapshot)


def _answers(requests: Sequence[Once], rows: Rows, *, snapshot: TypeAdapter[T]) -> list[T | RequestIdReused | None]:
    kept = {(caller, method, request_id): found for caller, method, request_id, *found in rows}

    def answer_to(once: Once) -> T | RequestIdReused | None:
        found = kept.get(once.key.identity) if once.key else None
        if once.key is None or found is None:
            return None
        fingerprint, response, created_at = found
        if created_at < once.now - KEPT:
            return None
        if response is None:
            return AnswerErased(str(once.key.request_id))
        if fingerprint != once.key.fingerprint:
            return RequestIdReused(str(once.key.request_id))
        metrics.write_replayed(once.key.method)
        return snapshot.validate_json(response)

    return [answer_to(once) for once in requests]


def complete(connection: Connection, answered: Sequence[Answered]) -> None:
    """Keep the answers to requests whose keys are ours."""
    rows = [each.once.row(resource_id=each.resource_id, response=each.response) for each in answered if each.once.key]
    _run(connection, _COMPLETE, rows)


def release(connection: Connection, requests: Sequence[Once]) -> None:
    """Leave keys that are ours unused, since their requests fail while others of the transaction do not."""
    _run(connection, _RELEASE, [once.row() for once in requests if once.key])


def _run(connection: Connection, statement: str, rows: Sequence[Mapping[str, object]]) -> Sequence[Row[Any]]:
    if not rows:
        return ()
    return execute(connection, statement, as_json(rows))


def erase_answers(connection: Connection, resource_ids: Collection[UUID]) -> None:
    """Erase every kept answer about these resources, so that nothing personal outlives them.

    The keys stay used: a repetition is refused, and not done again.
    """
    connection.execute(_erase, {"resource_ids": list(resource_ids)})


async def sweep_forever(database: Database, clock: Clock, *, every_s: float = 600) -> None:
    """Remove expired keys, in small batches, at once and then now and then, until cancelled.

    Every replica does it; SKIP LOCKED keeps them out of each other's way.
    """
    batch = text("""
        DELETE FROM idempotency_keys
        WHERE ctid = ANY (ARRAY (
            SELECT ctid
            FROM idempotency_keys
            WHERE created_at < :oldest
            ORDER BY created_at
            LIMIT 1000
            FOR UPDATE SKIP LOCKED
        ))
    """)

    def remove_some(connection: Connection) -> int:
        return connection.execute(batch, {"oldest": clock.now() - KEPT}).rowcount

    while True:
        try:
            while await database.transaction(remove_some):
                pass
        except Exception as error:
            log.warning("idempotency.sweep_failed", exc_info=error)
        await asyncio.sleep(every_s)
