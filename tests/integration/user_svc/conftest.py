"""The user of the accounts' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.user_svc.logins import EMAIL
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub


@pytest.fixture
async def ada(users: UserServiceAsyncStub) -> User:
    """A user with EMAIL and PASSWORD."""
    return await users.CreateUser(create_user_request(email=EMAIL))
