"""The settings of the notes service."""

from __future__ import annotations

from chassis.client.settings import PeerSettings
from chassis.settings import Section


class LibrarySettings(PeerSettings, env_prefix="LIBRARY_SERVICE_"):
    """Another notes service, which has the notes that one can quote."""

    url: str = ""
    """Empty: there is none, and any note can be quoted."""


class KeySettings(Section, env_prefix="NOTES_"):
    """The key of access tokens."""

    public_key: str
    """The public key of the tests' tokens, as a JWK has it."""
