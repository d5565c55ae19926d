"""A user with very many open sessions: the oldest end, so that a change of the password can end the others."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from shop.user.v1 import session_service_pb2 as pb

from tests.integration.user_svc.logins import log_in
from user_svc.sessions.model import MOST_OPEN

if TYPE_CHECKING:
    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_pb2 import User

    from tests.integration.databases import TestDatabase

ALL_OPEN = "SELECT id FROM sessions WHERE user_id = %s AND ended_at IS NULL ORDER BY id"
EARLIER = """
    INSERT INTO sessions (id, user_id, chain_key, created_at, expires_at)
    SELECT CAST(lpad(to_hex(n), 32, '0') AS uuid), %s, '', now(), now() + interval '30 days'
    FROM generate_series(1, %s) AS n
"""


async def test_the_oldest_sessions_of_a_user_end_when_there_are_too_many(
    sessions: SessionServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    users_database.query(EARLIER, ada.id, MOST_OPEN + 1)

    session = await log_in(sessions)

    still_open = [each for (each,) in users_database.query(ALL_OPEN, ada.id)]
    assert still_open == [*map(UUID, (f"{n:032x}" for n in range(3, MOST_OPEN + 2))), UUID(session.id)]


async def test_a_login_ends_no_session_while_there_are_not_too_many(
    sessions: SessionServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    users_database.query(EARLIER, ada.id, MOST_OPEN - 1)

    session = await log_in(sessions)
    await sessions.RefreshSession(pb.RefreshSessionRequest(refresh_token=session.refresh_token))

    assert len(users_database.query(ALL_OPEN, ada.id)) == MOST_OPEN


async def test_a_login_ends_a_bounded_number_of_sessions(
    sessions: SessionServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    users_database.query(EARLIER, ada.id, MOST_OPEN + 1000)

    await log_in(sessions)

    assert len(users_database.query(ALL_OPEN, ada.id)) == MOST_OPEN + 901
