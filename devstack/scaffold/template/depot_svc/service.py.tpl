"""The use cases of «parcels». Opens the transactions."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

# [uuid key]
from chassis.clock import new_id
# [end]
from chassis.database.keyed import Lookup
from chassis.idempotency.inserts import IdempotentInserts
from chassis.idempotency.store import ResponseCodec
from chassis.idempotency.transactions import IdempotentTransactions, LockedChange
from depot_svc import events, repository
# [uuid key]
from depot_svc.errors import ParcelNotFound
# [end]
# [text key]
from depot_svc.errors import ParcelExists, ParcelNotFound
# [end]
from depot_svc.model import Parcel, ParcelId

if TYPE_CHECKING:
    # [uuid key]
    from collections.abc import Sequence
    # [end]
    # [text key]
    from collections.abc import Mapping, Sequence
    # [end]

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.idempotency.key import IdempotencyKey
    from chassis.idempotency.transactions import Request
    from chassis.server.pagination import Page, PageRequest
    from depot_svc.commands import Rename

_PARCEL: Final = ResponseCodec.of(TypeAdapter(Parcel), resource_id=attrgetter("id"))


class DepotService:
    """The use cases of «parcels». Concurrent calls are answered in batches."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lookups = database.batched_reads(repository.find_parcels, name="parcels.find")
        # [uuid key]
        self._inserts = IdempotentInserts(database, repository.insert_parcels, name="parcels.create", codec=_PARCEL)
        # [end]
        # [text key]
        self._inserts = IdempotentInserts(
            database, repository.insert_parcels, name="parcels.create", codec=_PARCEL, check=self._refuse_taken
        )
        # [end]
        change = LockedChange(lock=_lock, apply=self._apply, write=_write)
        self._changes = IdempotentTransactions(
            database, change, name="parcels.update", exclusive_by=attrgetter("parcel_id"), codec=_PARCEL
        )

    # [uuid key]
    async def create_parcel(self, display_name: str, *, key: IdempotencyKey) -> Parcel:
        """Create «a parcel».

        Raises:
            RequestIdReused: the key was used with other content.
        """
        parcel = Parcel.new(ParcelId(new_id()), display_name, now=self._clock.now())
        # [end]
    # [text key]
    async def create_parcel(self, parcel_id: ParcelId, display_name: str, *, key: IdempotencyKey) -> Parcel:
        """Create «a parcel».

        Raises:
            ParcelExists: there is one with this id.
            RequestIdReused: the key was used with other content.
        """
        parcel = Parcel.new(parcel_id, display_name, now=self._clock.now())
        # [end]
        return await self._inserts.submit(key, parcel, event=events.parcel_created(parcel))

    async def get_parcel(self, parcel_id: ParcelId) -> Parcel:
        """Return «a parcel».

        Raises:
            ParcelNotFound: there is none.
        """
        found = await self._lookups.submit(Lookup(parcel_id))
        if found is None:
            raise ParcelNotFound(parcel_id)
        return found

    # [uuid key]
    async def list_parcels(self, page: PageRequest) -> Page[Parcel]:
        """Return a page of «parcels», newest first."""
        # [end]
    # [text key]
    async def list_parcels(self, page: PageRequest[str]) -> Page[Parcel]:
        """Return a page of «parcels», in the order of their ids."""
        # [end]
        return await self._database.read(lambda connection: repository.list_parcels(connection, page))

    async def rename_parcel(self, command: Rename, *, key: IdempotencyKey) -> Parcel:
        """Give «a parcel» another name.

        Raises:
            ParcelNotFound: there is no such «parcel».
            EtagMismatch: it has changed since.
            RequestIdReused: the key was used with other content.
        """
        return await self._changes.submit(key, command)

    # [text key]
    async def _refuse_taken(self, parcels: Sequence[Parcel]) -> Mapping[str, ParcelExists]:
        found = await repository.find_parcels(self._database.fetch, [Lookup(each.id) for each in parcels])
        return {each.id: ParcelExists(each.id) for each in found if each is not None}

    # [end]
    def _apply(self, command: Rename, parcel: Parcel | None) -> Parcel:
        if parcel is None:
            raise ParcelNotFound(command.parcel_id)
        return command.apply(parcel, now=self._clock.now())


def _lock(connection: Connection, commands: Sequence[Rename], *, wait: bool) -> list[Parcel | None]:
    return repository.lock_parcels(connection, [Lookup(command.parcel_id) for command in commands], wait=wait)


def _write(connection: Connection, outcomes: Sequence[tuple[Request[Rename], Parcel]]) -> None:
    """Write the «parcels» that got a name, with their events."""
    changed = [
        (parcel, events.parcel_updated(parcel, traceparent=request.traceparent))
        for request, parcel in outcomes
        if request.command.display_name is not None
    ]
    repository.update_parcels(connection, changed)
