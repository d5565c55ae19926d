"""The user service's settings of its own."""

from typing import Annotated

from pydantic import Field

from chassis.settings import Constant, Section


class PasswordSettings(Section, env_prefix="ARGON2_"):
    """The cost of a password hash: OWASP's argon2id with 46 MiB, one pass, one lane (Password Storage Cheat Sheet)."""

    memory_kib: Annotated[int, Field(ge=8, le=4_194_304)] = 47_104
    """Memory of one hash: 46 MiB, as OWASP recommends with one pass. An older hash is replaced at the next log-in. At
    most 4 GiB, more than a container of the service has."""
    passes: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes over that memory. OWASP allows less memory with more passes: 19,456 KiB with 2."""
    lanes: Constant[int] = 1
    """The degree of parallelism of one hash; 1 in each of OWASP's recommendations."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Hashes of a replica at the same time. Each takes a core and its memory for some 60 ms."""
    max_waiting: Constant[int] = 128
    """Calls that may wait for a worker; further ones are refused with `OVERLOADED`. Two workers make some 40 hashes a
    second, so the last of these waits 3 s."""
    max_wait_s: Constant[float] = 5
    """How long a call waits for a worker before it is refused with `OVERLOADED`: a third of the edge's 15 s, since the
    hash and the database come after it."""


class PasswordRuleSettings(Section, env_prefix="PASSWORD_"):
    """The rules for new passwords."""

    min_length: Annotated[int, Field(ge=8, le=64)] = 15
    """Characters of a new password, in NFC. NIST SP 800-63B-4, 3.1.1.2: at least 15 where the password is the only
    factor, else 8. The contract itself refuses fewer than 8; a minimum above 64 would refuse good passwords."""
