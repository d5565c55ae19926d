"""The use cases of «parcels». Opens the transactions."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from chassis.clock import new_id
from chassis.errors import DomainError
from chassis.idempotency.inserts import IdempotentInserts
from chassis.idempotency.store import ResponseCodec
from chassis.idempotency.transactions import IdempotentTransactions
from depot_svc import events, repository
from depot_svc.errors import ParcelNotFound
from depot_svc.model import Parcel, ParcelId
from depot_svc.repository import ParcelUpdate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.idempotency.key import IdempotencyKey
    from chassis.idempotency.transactions import Request
    from chassis.server.pagination import PageRequest

_PARCEL: Final = ResponseCodec.of(TypeAdapter(Parcel), resource_id=attrgetter("id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """Give «a parcel» another name.

    Attributes:
        display_name: the new name; None leaves the «parcel» as it is.
        etag: of the version that the caller saw; empty for any version.
    """

    parcel_id: ParcelId
    display_name: str | None
    etag: str


class DepotService:
    """The use cases of «parcels». Concurrent calls are answered in batches."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lookups = database.batched_reads(repository.find_parcels, name="parcels.find")
        self._inserts = IdempotentInserts(
            database, repository.insert_parcels, name="parcels.create", check=_no_refusals, codec=_PARCEL
        )
        self._changes = IdempotentTransactions(
            database, self._change, name="parcels.update", exclusive_by=attrgetter("parcel_id"), codec=_PARCEL
        )

    async def create_parcel(self, display_name: str, *, key: IdempotencyKey) -> Parcel:
        """Create «a parcel».

        Raises:
            RequestIdReused: the key was used with other content.
        """
        now = self._clock.now()
        parcel = Parcel(id=ParcelId(new_id()), display_name=display_name, created_at=now, updated_at=now, version=1)
        return await self._inserts.submit(key, parcel, event=events.parcel_created(parcel))

    async def get_parcel(self, parcel_id: ParcelId) -> Parcel:
        """Return «a parcel».

        Raises:
            ParcelNotFound: there is none.
        """
        found = await self._lookups.submit(parcel_id)
        if found is None:
            raise ParcelNotFound(parcel_id)
        return found

    async def list_parcels(self, page: PageRequest) -> list[Parcel]:
        """Return a page of «parcels», newest first, and one more if there are more."""
        return await self._database.read(lambda connection: repository.list_parcels(connection, page))

    async def rename_parcel(self, command: Rename, *, key: IdempotencyKey) -> Parcel:
        """Give «a parcel» another name.

        Raises:
            ParcelNotFound: there is no such «parcel».
            EtagMismatch: it has changed since.
            RequestIdReused: the key was used with other content.
        """
        return await self._changes.submit(key, command)

    def _change(
        self, connection: Connection, requests: Sequence[Request[Rename]], *, wait: bool
    ) -> list[Parcel | DomainError]:
        """Lock the «parcels», apply each command, and write what changes."""
        ids = [each.command.parcel_id for each in requests]
        outcomes: list[Parcel | DomainError] = []
        updates: list[ParcelUpdate] = []
        for each, parcel in zip(requests, repository.lock_parcels(connection, ids, wait=wait), strict=True):
            outcome = self._apply(each.command, parcel)
            outcomes.append(outcome)
            if isinstance(outcome, Parcel) and outcome is not parcel:
                updates.append(ParcelUpdate(outcome, events.parcel_updated(outcome, traceparent=each.traceparent)))
        repository.update_parcels(connection, updates)
        return outcomes

    def _apply(self, command: Rename, parcel: Parcel | None) -> Parcel | DomainError:
        if parcel is None:
            return ParcelNotFound(command.parcel_id)
        try:
            parcel.require_etag(command.etag)
        except DomainError as refusal:
            return refusal
        if command.display_name is None:
            return parcel
        return parcel.renamed(command.display_name, now=self._clock.now())


async def _no_refusals(_parcels: Sequence[Parcel]) -> Mapping[UUID, DomainError]:
    return {}
