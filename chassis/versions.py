"""The versions of a resource, and the etag that callers see of one."""

from dataclasses import dataclass
from datetime import datetime

from chassis.errors import EtagMismatch


def etag_of(version: int) -> str:
    """Return the etag of a version of a resource."""
    return f"v{version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Versioned:
    """A resource whose changes are counted: each change is a new object with the next version.

    Attributes:
        created_at, updated_at: aware.
        version: counts the changes from 1.
    """

    created_at: datetime
    updated_at: datetime
    version: int

    @property
    def etag(self) -> str:
        """The etag of this version."""
        return etag_of(self.version)

    def require_etag(self, etag: str) -> None:
        """Return if the etag is empty or current.

        Raises:
            EtagMismatch: it is stale.
        """
        if etag and etag != self.etag:
            raise EtagMismatch(current=self.etag)
