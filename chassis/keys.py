"""The key of a resource: a UUID that its service makes, or a text that its callers choose, such as a SKU."""

from typing import Literal, TypeAlias
from uuid import NAMESPACE_OID, UUID, uuid5

Key: TypeAlias = UUID | str
KeyType: TypeAlias = Literal["uuid", "text"]
"""The type of a service's keys in PostgreSQL."""


def uuid_of(key: Key) -> UUID:
    """Return the key, or the UUID that stands for a text where keys are only compared.

    The inbox and the stored responses keep it, so that their tables are the same whatever the keys of a service are.
    """
    return key if isinstance(key, UUID) else uuid5(NAMESPACE_OID, key)
