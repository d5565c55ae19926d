"""Knows which users may order: asks the user service or, while it does not answer, the projection of its events."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from typing_extensions import override

from chassis.events import inbox
from order_svc import buyer_projection, metrics
from order_svc.buyer_projection import UserState
from order_svc.errors import UserNotActive, UserServiceUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.errors import DomainError
    from order_svc.model import BuyerId

# How stale the projection may be. During an outage of the user service a suspended user can order at most this long.
FRESH: Final = timedelta(minutes=5)
# How far the clocks of two machines may differ, as for tokens.
_MAX_CLOCK_SKEW: Final = timedelta(seconds=5)


class BuyerDirectory(Protocol):
    """Knows which users may order."""

    async def refusals(self, user_ids: Collection[BuyerId]) -> Mapping[BuyerId, DomainError]:
        """Return a refusal for each user who may not order: OrderingUserNotFound or UserNotActive.

        Users who may order are absent.

        Raises:
            UserServiceUnavailable: the user service does not answer, or the circuit is open.
            DeadlineExceeded: the caller left too little time to ask.
        """


class BuyersWithProjection(BuyerDirectory):
    """Asks the user service; falls back on the projection of users while that is unavailable.

    Users whose state is unknown or stale are then refused with UserServiceUnavailable.
    """

    def __init__(self, buyers: BuyerDirectory, database: Database, clock: Clock) -> None:
        self._buyers = buyers
        self._database = database
        self._clock = clock

    @override
    async def refusals(self, user_ids: Collection[BuyerId]) -> Mapping[BuyerId, DomainError]:
        try:
            return await self._buyers.refusals(user_ids)
        except UserServiceUnavailable as unavailable:
            states, as_of = await self._database.read(lambda connection: _look_up(connection, user_ids))
            # A time later than now says that two clocks differ, and not by how much.
            is_fresh = as_of is not None and -_MAX_CLOCK_SKEW <= self._clock.now() - as_of <= FRESH
            refused: dict[BuyerId, DomainError] = {}
            for user_id in user_ids:
                state = states.get(user_id)
                if state is UserState.DELETED:  # final, however stale the projection is
                    refused[user_id] = UserNotActive(user_id)
                elif state is None or not is_fresh:  # an unknown user may be new
                    refused[user_id] = unavailable
                elif state is not UserState.ACTIVE:
                    refused[user_id] = UserNotActive(user_id)
            metrics.projection_answered(sum(refused.get(user_id) is not unavailable for user_id in user_ids))
            return refused


def _look_up(
    connection: Connection, user_ids: Collection[BuyerId]
) -> tuple[Mapping[BuyerId, UserState], datetime | None]:
    # Read `as_of` first. Events applied between the two reads make the states newer than `as_of`, which is safe; the
    # other order could make them older.
    as_of = inbox.as_of(connection, buyer_projection.USERS)
    return buyer_projection.find_states(connection, user_ids), as_of
