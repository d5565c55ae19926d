"""The user service's settings: its own, and its name for the common ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from chassis.settings import Section
from chassis.telemetry.settings import TelemetrySettings


class UserTelemetrySettings(TelemetrySettings):
    """Names the service."""

    service_name: str = "user_svc"


class PasswordSettings(Section, env_prefix="ARGON2_"):
    """The cost of a password hash: OWASP's argon2id with 46 MiB, one pass, one lane (Password Storage Cheat Sheet)."""

    memory_kib: Annotated[int, Field(ge=8)] = 47_104
    passes: Annotated[int, Field(ge=1)] = 1
    lanes: Annotated[int, Field(ge=1)] = 1
    # Hashes at the same time: each takes a core and its memory for tens of milliseconds.
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    # Calls that may wait for a thread. Two workers make some 40 hashes a second, so the last of these waits 3 s.
    max_waiting: Annotated[int, Field(ge=1, le=10_000)] = 128
    # How long a call waits for a thread: a third of the edge's 15 s, since the hash and the database come after it.
    max_wait_s: Annotated[float, Field(gt=0, le=30)] = 5


class PasswordRuleSettings(Section, env_prefix="PASSWORD_"):
    """What a new password must be."""

    # Characters in NFC. NIST SP 800-63B-4, 3.1.1.2: at least 15 where the password is the only factor, else 8.
    # The contract refuses fewer than 8 by itself; above 64 people with a good password would be refused.
    min_length: Annotated[int, Field(ge=8, le=64)] = 15
