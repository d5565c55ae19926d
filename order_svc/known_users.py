"""The UserDirectory that still knows something when the user service does not answer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from order_svc import metrics, projection
from order_svc.errors import UserNotActive, UserServiceUnavailable
from order_svc.projection import UserState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.errors import DomainError
    from order_svc.model import BuyerId
    from order_svc.service import UserDirectory

# Who was suspended or deleted may go on ordering for so long, if nobody can tell us.
FRESH: Final = timedelta(minutes=5)


class DirectoryWithProjection:
    """Asks the user service; falls back on the users' events while it does not answer.

    Args:
        users: the user service.
        database: with the projection of users.
        clock: tells how old that is.
    """

    def __init__(self, users: UserDirectory, database: Database, clock: Clock) -> None:
        self._users = users
        self._database = database
        self._clock = clock

    async def refusals(self, user_ids: Collection[BuyerId]) -> Mapping[BuyerId, DomainError]:
        """Return why those users may not order who may not.

        While the user service does not answer, that is the reason for those of whom too little is known.
        """
        try:
            return await self._users.refusals(user_ids)
        except UserServiceUnavailable as unavailable:
            states, as_of = await self._database.read(lambda connection: _look_up(connection, user_ids))
            is_fresh = as_of is not None and self._clock.now() - as_of <= FRESH
            refused: dict[BuyerId, DomainError] = {}
            for user_id in user_ids:
                state = states.get(user_id)
                if state is UserState.DELETED:  # for good, however old the news is
                    refused[user_id] = UserNotActive(user_id)
                elif state is None or not is_fresh:  # somebody who is not known may be new
                    refused[user_id] = unavailable
                elif state is not UserState.ACTIVE:
                    refused[user_id] = UserNotActive(user_id)
            metrics.projection_answered(sum(refused.get(user_id) is not unavailable for user_id in user_ids))
            return refused


def _look_up(
    connection: Connection, user_ids: Collection[BuyerId]
) -> tuple[Mapping[BuyerId, UserState], datetime | None]:
    # In this order: what is known may be newer than the time says, and must not be older.
    as_of = projection.users_as_of(connection)
    return projection.find_states(connection, user_ids), as_of
