"""Logging in to a running stack, as its callers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpx

from devstack.home import Home
from devstack.stack import ADMIN_EMAIL

if TYPE_CHECKING:
    from pathlib import Path

    from devstack.stack import Stack

NO_LIMITS: Final[dict[str, Any]] = {"rate_limit": 1_000_000_000, "public_write_limit": 500_000_000}
"""Settings of a stack without effective rate limits. Two different numbers, so that each limit can be recognised."""


def log_in(edge_url: str, *, email: str, password: str) -> dict[str, str]:
    """Return a new session of the user, as JSON."""
    credentials = {"email": email, "password": password}
    response = httpx.post(f"{edge_url}/api/v1/sessions", json=credentials, timeout=30, trust_env=False)
    response.raise_for_status()
    return dict(response.json())


def admins_token(stack: Stack) -> str:
    """Return an access token of the stack's admin."""
    return log_in(stack.edge_url, email=stack.admin_email, password=stack.admin_password)["accessToken"]


def admins_token_at(edge_url: str, home: Path) -> str:
    """Return an access token of the admin of a stack that another process runs in this home."""
    return log_in(edge_url, email=ADMIN_EMAIL, password=Home(home).admin.read_text().strip())["accessToken"]
