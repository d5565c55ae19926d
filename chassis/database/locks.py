"""The numbers of the advisory locks, all of them: two that share a number in one database wait for each other.

A number never changes: during a deployment old and new processes must mean the same lock by it.
"""

from typing import Final

MIGRATIONS: Final = 7_310_579_601
RELAY: Final = 7_310_579_602
SIGNING_KEYS: Final = 7_310_579_603
