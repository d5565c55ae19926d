"""The UserDirectory that still knows something when the user service does not answer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from order_svc import projection
from order_svc.errors import UserNotActive, UserServiceUnavailable
from order_svc.projection import UserState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.db import Database
    from order_svc.model import BuyerId
    from order_svc.service import UserDirectory

log = structlog.get_logger(__name__)

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

    async def require_active(self, user_ids: Sequence[BuyerId]) -> None:
        """Return if every user exists and may order.

        Raises:
            OrderingUserNotFound: one does not exist.
            UserNotActive: one may not order.
            UserServiceUnavailable: the user service does not answer, and what is known is not enough.
        """
        try:
            await self._users.require_active(user_ids)
        except UserServiceUnavailable:
            states, as_of = await self._database.read(lambda connection: _look_up(connection, user_ids))
            answers = [states.get(user_id) for user_id in user_ids]
            for user_id, state in zip(user_ids, answers, strict=True):
                if state is UserState.DELETED:  # for good, however old the news is
                    raise UserNotActive(user_id) from None
            # Somebody who is not known may be new.
            if None in answers or as_of is None or self._clock.now() - as_of > FRESH:
                raise
            log.info("users.projection_used", users=len(user_ids), as_of=as_of.isoformat())
            for user_id, state in zip(user_ids, answers, strict=True):
                if state is not UserState.ACTIVE:
                    raise UserNotActive(user_id) from None


def _look_up(connection: Connection, user_ids: Sequence[BuyerId]) -> tuple[dict[BuyerId, UserState], datetime | None]:
    # In this order: what is known may be newer than the time says, and must not be older.
    as_of = projection.users_as_of(connection)
    return projection.find_states(connection, user_ids), as_of
