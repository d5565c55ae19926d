"""Changes of existing resources, each made once: in a batch of requests that is one transaction, or alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from chassis.concurrency.batcher import RETRY_ALONE, Batcher
from chassis.errors import DatabaseUnavailable, DomainError, NotFound, RequestIdReused
from chassis.events.outbox import traceparent_now
from chassis.idempotency import store
from chassis.idempotency.key import first_of_each_key

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from sqlalchemy import Connection

    from chassis.concurrency.batcher import Answer
    from chassis.database import Database
    from chassis.idempotency.key import IdempotencyKey
    from chassis.idempotency.store import ResponseCodec

T = TypeVar("T")
Command = TypeVar("Command")
Command_contra = TypeVar("Command_contra", contravariant=True)
Resource = TypeVar("Resource")
Resource_co = TypeVar("Resource_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Request(Generic[Command]):
    """One request to change a resource, as a transaction with several of them needs it.

    Attributes:
        traceparent: of the call, for the events of the change: a batch serves many calls.
    """

    command: Command
    key: IdempotencyKey
    traceparent: str


class LockBatch(Protocol[Command_contra, Resource_co]):
    """Locks resources in a transaction."""

    def __call__(
        self, connection: Connection, commands: Sequence[Command_contra], *, wait: bool
    ) -> Sequence[Resource_co | None]:
        """Return for each command its locked resource, or None.

        Unless it may wait, a row that another transaction has locked counts as missing.
        """


@dataclass(frozen=True, slots=True)
class LockedChange(Generic[Command, Resource, T]):
    """A change of resources in a transaction: locks them, applies each command to its own, and writes the outcomes.

    Attributes:
        lock: locks the resources of the commands.
        apply: makes the response of a command and its resource, which is None if there is none; raises its refusal: a
            NotFound for None, so that the command is repeated alone if it did not wait for the row.
        write: writes what the outcomes have changed, with its events; is called also with outcomes that change nothing.
    """

    lock: LockBatch[Command, Resource]
    apply: Callable[[Command, Resource | None], T]
    write: Callable[[Connection, Sequence[tuple[Request[Command], T]]], None]

    def __call__(
        self, connection: Connection, requests: Sequence[Request[Command]], *, wait: bool
    ) -> list[T | DomainError]:
        """Return the responses to requests for different resources, or their refusals, in the order of the requests."""
        locked = self.lock(connection, [each.command for each in requests], wait=wait)
        outcomes = [self._outcome(each.command, resource) for each, resource in zip(requests, locked, strict=True)]
        pairs = zip(requests, outcomes, strict=True)
        self.write(connection, [(each, outcome) for each, outcome in pairs if not isinstance(outcome, DomainError)])
        return outcomes

    def _outcome(self, command: Command, resource: Resource | None) -> T | DomainError:
        try:
            return self.apply(command, resource)
        except DomainError as refusal:
            return refusal


class IdempotentTransactions(Generic[Command, T]):
    """Changes the resources of concurrent requests in one transaction, each once.

    A request that would have to wait, for a row lock or for an earlier request of the same batch, is run alone, so that
    it delays no other.

    Args:
        exclusive_by: what two requests of one transaction must not have in common, such as the resource's id.
        codec: how a response is stored.
    """

    def __init__(
        self,
        database: Database,
        change: LockedChange[Command, Any, T],
        *,
        name: str,
        exclusive_by: Callable[[Command], Hashable],
        codec: ResponseCodec[T],
    ) -> None:
        self._change = change
        self._exclusive_by = exclusive_by
        self._codec = codec
        self._batcher: Batcher[Request[Command], T] = database.batched_writes(
            partial(self._run, wait=False), name=name, write_alone=partial(self._run, wait=True)
        )

    async def submit(self, key: IdempotencyKey, command: Command) -> T:
        """Return the response to the command; if the key was used before, the response that was given then.

        Raises:
            RequestIdReused: the key was used with other content.
            DatabaseUnavailable, OutcomeUnknown, Overloaded: as Database.transaction().
            DomainError: the refusal of the change.
        """
        return await self._batcher.submit(Request(command, key, traceparent_now()))

    def _run(self, connection: Connection, batch: Sequence[Request[Command]], *, wait: bool) -> list[Answer[T]]:
        answers: list[Answer[T]] = [RETRY_ALONE] * len(batch)
        exclusive = self._exclusive(batch)
        claimed = store.claim(connection, [batch[n].key for n in exclusive])
        fresh = [n for n in exclusive if batch[n].key.is_claimed(claimed)]
        repeated = [n for n in exclusive if not batch[n].key.is_claimed(claimed)]
        stored = store.find(connection, [batch[n].key for n in repeated], codec=self._codec)
        for n, response in zip(repeated, stored, strict=True):
            # Without a response the key expired and was swept between the two statements.
            answers[n] = DatabaseUnavailable() if response is None else response
        outcomes = self._change(connection, [batch[n] for n in fresh], wait=wait) if fresh else ()
        for n, outcome in zip(fresh, outcomes, strict=True):
            answers[n] = RETRY_ALONE if isinstance(outcome, NotFound) and not wait else outcome
        self._settle(connection, [(batch[n].key, outcome) for n, outcome in zip(fresh, outcomes, strict=True)])
        return answers

    def _exclusive(self, batch: Sequence[Request[Command]]) -> list[int]:
        """Return the numbers of the requests that no earlier one shares its key or its resource with."""
        first: dict[Hashable, int] = {}
        for n in first_of_each_key([request.key for request in batch]):
            first.setdefault(self._exclusive_by(batch[n].command), n)
        return list(first.values())

    def _settle(self, connection: Connection, outcomes: Sequence[tuple[IdempotencyKey, T | DomainError]]) -> None:
        """Store the responses under the keys of their requests; give back the keys of failed requests."""
        succeeded = [(key, outcome) for key, outcome in outcomes if not isinstance(outcome, DomainError)]
        store.complete(connection, succeeded, codec=self._codec)
        store.release(connection, [key for key, outcome in outcomes if isinstance(outcome, DomainError)])


def write_once(connection: Connection, key: IdempotencyKey, write: Callable[[], T], *, codec: ResponseCodec[T]) -> T:
    """Return the response of the write; if the key was used before, the response that was given then.

    Runs in the transaction of the write. Concurrent requests with one key wait here for the first to commit. If the
    write raises, the key stays unused.

    Raises:
        RequestIdReused: the key was used with other content.
    """
    if key.identity and not store.claim(connection, [key]):
        stored = stored_response(connection, key, codec=codec)
        if stored is None:
            # Cannot be: the claim has locked the row that it did not get.
            raise DatabaseUnavailable
        return stored
    response = write()
    store.complete(connection, [(key, response)], codec=codec)
    return response


def stored_response(connection: Connection, key: IdempotencyKey, *, codec: ResponseCodec[T]) -> T | None:
    """Return the response to an earlier request with this key, or None.

    Raises:
        RequestIdReused: the key was used with other content.
    """
    [found] = store.find(connection, [key], codec=codec)
    if isinstance(found, RequestIdReused):
        raise found
    return found
