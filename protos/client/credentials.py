"""The credentials of a user. Nothing here needs the contract of sessions, which not every project keeps."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Login:
    """The credentials of a user, for the `token` of connect(): the channel logs in with its first call."""

    email: str
    password: str = field(repr=False)
