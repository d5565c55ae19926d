"""Messages to send with defaults, so that a test shows only the values that matter to it."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from shop.user.v1 import user_service_pb2

from chassis.testing import new_uuid

FROM_THE_BEGINNING: Final = str(UUID(int=0))
"""The resume token of a stream that delivers every change."""

PASSWORD: Final = "correct horse battery"  # of every user that a test creates


def create_user_request(**changes: Any) -> user_service_pb2.CreateUserRequest:
    """Return a request for a user with an unused email."""
    fields = {"email": f"ada-{new_uuid()}@example.com", "password": PASSWORD, "display_name": "Ada Lovelace"}
    return user_service_pb2.CreateUserRequest(**{**fields, **changes})
