"""New resources, each inserted once: a batch of requests is one statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from psycopg.errors import UniqueViolation
from sqlalchemy.exc import IntegrityError

from chassis.concurrency.batcher import Batcher
from chassis.errors import DatabaseUnavailable, DomainError
from chassis.events import outbox
from chassis.idempotency import store
from chassis.idempotency.key import first_of_each_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from uuid import UUID

    from chassis.database import Database
    from chassis.database.statement_pool import Fetch
    from chassis.events.outbox import Event
    from chassis.idempotency.key import IdempotencyKey
    from chassis.idempotency.store import ResponseCodec
    from chassis.keys import Key, KeyType

    # By the ids of the resources.
    Refusals = Mapping[UUID, DomainError] | Mapping[str, DomainError]

T = TypeVar("T")

# Batches of inserts at a time. One: while a batch is checked and written the next one gathers, and with two each would
# be half as long.
_INSERTING_AT_ONCE: Final = 1


@dataclass(frozen=True, slots=True)
class Insert(Generic[T]):
    """A new resource with everything that one statement writes beside it.

    Attributes:
        resource: also the response to its request.
        response: the resource, as it is stored under the key.
    """

    resource: T
    resource_id: Key
    event: Event
    key: IdempotencyKey
    response: bytes

    def row(self) -> dict[str, object]:
        """Return the columns that insert_once() adds to the resource's own."""
        return {**self.event.row(), **self.key.row(resource_id=self.resource_id, response=self.response)}


def insert_once(*, columns: str, inserts: str, returning: str, key: KeyType = "uuid") -> str:
    """Return the statement that inserts new resources, except those whose idempotency key is taken.

    Its one parameter is a JSON array of rows: the resource's own columns and those of Insert.row(). Keys, resources and
    events are written together or not at all.

    Args:
        columns: names and types of the resource's own columns.
        inserts: common table expressions that insert from `fresh`, the rows whose key was free or absent.
        returning: a SELECT of the ids of the resources that were inserted.
        key: the type of the resource's key.
    """
    return f"""
        WITH given AS MATERIALIZED (
            SELECT *
            FROM json_to_recordset(CAST(%s AS json)) AS given ({columns}, {outbox.columns_of(key)}, {store.COLUMNS})
        ),
        claimed AS ({store.claim_from("given")}),
        fresh AS (
            SELECT given.*
            FROM given
            LEFT JOIN claimed
                ON (caller, method, request_id) = (key_caller, key_method, key_request_id)
            WHERE key_request_id IS NULL OR request_id IS NOT NULL
        ),
        {inserts},
        events AS ({outbox.insert_from("fresh")})
        {returning}
    """  # noqa: S608  put together from constants


class InsertBatch(Protocol[T]):
    """A repository's function that runs a statement of insert_once()."""

    async def __call__(self, fetch: Fetch, inserts: Sequence[Insert[T]]) -> Collection[Key]:
        """Insert resources with different keys; return the ids of the inserted ones.

        The others are repetitions: their keys were taken.
        """


class IdempotentInserts(Generic[T]):
    """Inserts the new resources of concurrent requests together, each once.

    Args:
        insert: runs the statement, for one insert or more.
        codec: how a resource is stored as a response.
        check: gives refusals by the id of the resource; None for no refusals. It is asked once for a batch and before
            the statement: a slow peer must not hold row locks. An error that it raises refuses all of them.
    """

    def __init__(
        self,
        database: Database,
        insert: InsertBatch[T],
        *,
        name: str,
        codec: ResponseCodec[T],
        check: Callable[[Sequence[T]], Awaitable[Refusals]] | None = None,
    ) -> None:
        self._database = database
        self._insert = insert
        self._check = check
        self._codec = codec
        limits = database.limits(at_once=_INSERTING_AT_ONCE)
        self._batcher = Batcher(self._insert_together, name=name, alone=self._insert_alone, limits=limits)

    async def submit(self, key: IdempotencyKey, resource: T, *, event: Event) -> T:
        """Insert the resource and return it; if the key was used before, return the resource that was inserted then.

        Raises:
            RequestIdReused: the key was used with other content.
            DatabaseUnavailable, OutcomeUnknown, Overloaded: as Database.transaction().
            DomainError: the refusal of the check.
        """
        codec = self._codec
        new = Insert(resource, codec.resource_id(resource), event, key, codec.dump(resource))
        return await self._batcher.submit(new)

    async def _insert_together(self, batch: Sequence[Insert[T]]) -> Sequence[T | Exception]:
        refused = await self._refused(batch)
        # If every resource is refused, stored responses are read and nothing is written: not on the writes' connection.
        is_write = any(each.resource_id not in refused for each in batch)
        fetch = self._database.fetch_for_write if is_write else self._database.fetch
        try:
            return await self._run(fetch, batch, refused=refused)
        except UniqueViolation:
            if len(batch) > 1:
                raise  # each is inserted alone
            return await self._insert_alone(batch)

    async def _insert_alone(self, batch: Sequence[Insert[T]]) -> Sequence[T | Exception]:
        fetch = self._database.fetch_on_shared_pool
        try:
            return await self._run(fetch, batch, refused=await self._refused(batch))
        except IntegrityError:
            # If another request has inserted a resource with the same key since the check, the check sees it now.
            refused = await self._refused(batch)
            if not refused:
                raise
            return await self._run(fetch, batch, refused=refused)

    async def _refused(self, batch: Sequence[Insert[T]]) -> Mapping[Any, DomainError]:
        if self._check is None:
            return {}
        try:
            return await self._check([each.resource for each in batch])
        except DomainError as error:
            return dict.fromkeys([each.resource_id for each in batch], error)

    async def _run(
        self, fetch: Fetch, batch: Sequence[Insert[T]], *, refused: Mapping[Any, DomainError]
    ) -> Sequence[T | Exception]:
        allowed = [each for each in batch if each.resource_id not in refused]
        fresh = [allowed[n] for n in first_of_each_key([each.key for each in allowed])]
        inserted = await self._insert(fetch, fresh) if fresh else ()
        # A repetition gets the stored response, also if the check has become a refusal since.
        rest = [each for each in batch if each.resource_id not in inserted]
        if not rest:
            return [each.resource for each in batch]
        stored = await store.look_up(fetch, [each.key for each in rest], codec=self._codec)
        responses = dict(zip([each.resource_id for each in rest], stored, strict=True))

        def answer_to(each: Insert[T]) -> T | Exception:
            if each.resource_id in inserted:
                return each.resource
            # With no response and no refusal the key expired and was swept between the two statements.
            return responses[each.resource_id] or refused.get(each.resource_id) or DatabaseUnavailable()

        return [answer_to(each) for each in batch]
