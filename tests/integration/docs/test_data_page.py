"""docs/data.md says of each table that every service has how long its rows stay."""

from __future__ import annotations

import re
from typing import Final

from devstack.settings import REPOSITORY
from tests.integration.chassis.database.test_migrations import OF_EVERY_SERVICE

HEAD: Final = "how long a row stays |\n"
ROW: Final = re.compile(r"^\| (\w+) \| [^|]+ \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
BOUND: Final = re.compile(r"a week|\d+ hours|until|permanently: one")
SWEPT: Final = {"outbox", "dead_letters", "idempotency_keys"}


def test_every_table_has_a_bound_or_is_said_to_be_permanent() -> None:
    _, _, below = (REPOSITORY / "docs" / "data.md").read_text().partition(HEAD)
    stays = dict(ROW.findall(below))

    assert stays.keys() == OF_EVERY_SERVICE.keys()
    assert [table for table, bound in stays.items() if not BOUND.match(bound)] == []
    assert {table for table, bound in stays.items() if not bound.startswith("permanently")} == SWEPT
