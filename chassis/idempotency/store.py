"""The table of idempotency keys: claimed in the transaction of the effect, with the response stored beside it.

A second request with the same key waits for that transaction and gets its response. A key lives for 24 hours, per
caller and method. If its response is erased earlier, with the personal data in it, the key stays: a late repetition is
refused instead of being executed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import structlog
from sqlalchemy import text

from chassis.database.database import earlier_now
from chassis.database.statements import as_json, execute
from chassis.errors import AnswerErased, RequestIdReused
from chassis.idempotency.key import LIFETIME
from chassis.keys import uuid_of
from chassis.runtime.periodic import Failures, every
from chassis.telemetry.metrics.calls import write_replayed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pydantic import TypeAdapter
    from sqlalchemy import Connection, Row

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.database.statement_pool import Fetch, Rows
    from chassis.idempotency.key import IdempotencyKey, KeyTuple
    from chassis.keys import Key

T = TypeVar("T")

log = structlog.get_logger(__name__)

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

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

# The columns that IdempotencyKey.row() fills.
COLUMNS: Final = """
    key_caller text, key_method text, key_request_id uuid, key_fingerprint text, key_created_at timestamptz,
    key_resource_id uuid, key_response text
"""


def claim_from(query: str) -> str:
    """Return the statement that claims the keys of a query's rows, which have COLUMNS, and returns the claimed ones.

    An expired key counts as free. Keys are claimed in their order, so that two transactions that claim the same ones
    cannot deadlock.
    """
    return f"""
        INSERT INTO idempotency_keys AS stored
            (caller, method, request_id, fingerprint, resource_id, response, created_at)
        SELECT
            key_caller, key_method, key_request_id, decode(key_fingerprint, 'hex'),
            key_resource_id, convert_to(key_response, 'UTF8'), key_created_at
        FROM {query}
        WHERE key_request_id IS NOT NULL
        ORDER BY key_caller, key_method, key_request_id
        ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO UPDATE
        SET
            fingerprint = excluded.fingerprint,
            resource_id = excluded.resource_id,
            response = excluded.response,
            created_at = excluded.created_at
        WHERE stored.created_at < excluded.created_at - interval '{LIFETIME.total_seconds():.0f} seconds'
        RETURNING stored.caller, stored.method, stored.request_id
    """  # noqa: S608  put together from constants


_GIVEN: Final = f"SELECT * FROM json_to_recordset(CAST(%s AS json)) AS given ({COLUMNS})"  # noqa: S608  a constant
_IS_GIVEN: Final = """
    stored.caller = given.key_caller AND stored.method = given.key_method AND stored.request_id = given.key_request_id
"""

_CLAIM: Final = f"WITH given AS ({_GIVEN}) {claim_from('given')}"
_FIND: Final = f"""
    WITH given AS ({_GIVEN})
    SELECT stored.caller, stored.method, stored.request_id, stored.fingerprint, stored.response, stored.created_at
    FROM given
    JOIN idempotency_keys AS stored ON {_IS_GIVEN}
"""  # noqa: S608  put together from constants
_COMPLETE: Final = f"""
    WITH given AS ({_GIVEN})
    UPDATE idempotency_keys AS stored
    SET resource_id = given.key_resource_id, response = convert_to(given.key_response, 'UTF8')
    FROM given
    WHERE {_IS_GIVEN}
"""  # noqa: S608  put together from constants
# Not a DELETE: the key would be free, and a late duplicate of CreateUser would bring the erased data back. The
# fingerprint goes too: it is a digest of that data, and names and emails can be guessed.
_erase = text("UPDATE idempotency_keys SET response = NULL, fingerprint = '' WHERE resource_id = ANY (:resource_ids)")
_RELEASE: Final = f"""
    WITH given AS ({_GIVEN})
    DELETE FROM idempotency_keys AS stored
    USING given
    WHERE {_IS_GIVEN}
"""  # noqa: S608  put together from constants


@dataclass(frozen=True, slots=True)
class ResponseCodec(Generic[T]):
    """How the response to a write is stored.

    Attributes:
        dump: the response as JSON.
        load: the reverse.
        resource_id: the resource that the response shows: erase_responses() finds it by this.
    """

    dump: Callable[[T], bytes]
    load: Callable[[bytes], T]
    resource_id: Callable[[T], Key]

    @classmethod
    def of(cls, adapter: TypeAdapter[T], *, resource_id: Callable[[T], Key]) -> ResponseCodec[T]:
        """Return the codec of a type that pydantic knows."""
        return cls(adapter.dump_json, adapter.validate_json, resource_id)


def claim(connection: Connection, keys: Sequence[IdempotencyKey]) -> set[KeyTuple]:
    """Claim different keys for this transaction; return the free ones, which are claimed now.

    Waits for other transactions that have claimed one of them.
    """
    rows = [key.row() for key in keys if key.identity]
    return {(caller, method, request_id) for caller, method, request_id in map(tuple, _run(connection, _CLAIM, rows))}


def find(
    connection: Connection, keys: Sequence[IdempotencyKey], *, codec: ResponseCodec[T]
) -> list[T | RequestIdReused | None]:
    """Return for each key the response to the earlier request with it, or None.

    RequestIdReused, if the key was used with other content; AnswerErased, which is one too, if the response is erased.
    """
    rows = _run(connection, _FIND, [key.row() for key in keys if key.identity])
    return _responses(keys, rows, codec=codec)


async def look_up(
    fetch: Fetch, keys: Sequence[IdempotencyKey], *, codec: ResponseCodec[T]
) -> list[T | RequestIdReused | None]:
    """Return what find() does, outside of a transaction."""
    given = [key.row() for key in keys if key.identity]
    rows = await fetch(_FIND, as_json(given)) if given else ()
    return _responses(keys, rows, codec=codec)


def _responses(
    keys: Sequence[IdempotencyKey], rows: Rows, *, codec: ResponseCodec[T]
) -> list[T | RequestIdReused | None]:
    stored = {(caller, method, request_id): found for caller, method, request_id, *found in rows}

    def response_to(key: IdempotencyKey) -> T | RequestIdReused | None:
        found = stored.get(key.identity) if key.identity else None
        if found is None:
            return None
        fingerprint, response, created_at = found
        if created_at < key.received_at - LIFETIME:
            return None
        if response is None:
            return AnswerErased(str(key.request_id))
        if fingerprint != key.fingerprint:
            return RequestIdReused(str(key.request_id))
        write_replayed(key.method)
        return codec.load(response)

    return [response_to(key) for key in keys]


def complete(connection: Connection, responses: Sequence[tuple[IdempotencyKey, T]], *, codec: ResponseCodec[T]) -> None:
    """Store the responses under keys that this transaction has claimed."""
    rows = [
        key.row(resource_id=codec.resource_id(response), response=codec.dump(response))
        for key, response in responses
        if key.identity
    ]
    _run(connection, _COMPLETE, rows)


def release(connection: Connection, keys: Sequence[IdempotencyKey]) -> None:
    """Give back claimed keys of requests that fail while others of the same transaction succeed."""
    _run(connection, _RELEASE, [key.row() for key in keys if key.identity])


def _run(connection: Connection, statement: str, rows: Sequence[Mapping[str, object]]) -> Sequence[Row[Any]]:
    if not rows:
        return ()
    return execute(connection, statement, as_json(rows))


def erase_responses(connection: Connection, resource_ids: Collection[Key]) -> None:
    """Erase every stored response about these resources, so that no personal data outlives them.

    The keys stay used: a repetition is refused instead of being executed again.
    """
    connection.execute(_erase, {"resource_ids": [uuid_of(each) for each in resource_ids]})


async def sweep_forever(database: Database, clock: Clock, *, every_s: float = 600) -> None:
    """Remove expired keys in batches of 1,000, at once and then every `every_s`, until cancelled.

    Every replica does it; SKIP LOCKED keeps replicas from waiting for each other's batches.
    """
    # From the last batch on: the index has the entries of removed keys until the next VACUUM, and with two million of
    # them in front a batch would take thirty times as long.
    batch = text("""
        WITH removed AS (
            DELETE FROM idempotency_keys
            WHERE ctid = ANY (ARRAY (
                SELECT ctid
                FROM idempotency_keys
                WHERE created_at >= :after AND created_at < :oldest
                ORDER BY created_at
                LIMIT 1000
                FOR UPDATE SKIP LOCKED
            ))
            RETURNING created_at
        )
        SELECT max(created_at) FROM removed
    """)
    after: datetime | None = None

    async def remove_batch() -> bool:
        nonlocal after
        values = {"after": after or _LONG_AGO, "oldest": await earlier_now(database, clock) - LIFETIME}
        after = await database.transaction(lambda connection: connection.scalar(batch, values))
        return after is not None

    failures = Failures(failed="idempotency.sweep_failed", recovered="idempotency.sweep_recovered")
    await every(every_s, remove_batch, failures=failures)
