"""A service starts with every number that a setting may be at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from annotated_types import Le

from chassis.service import services
from chassis.testing import LOOPBACK
from tests.integration.replica import serving_process
from tests.support.service_settings import variables

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.databases import TestDatabase

SERVICES: Final = [service.name for service in services()]
# The ports are those of the test. The largest hash would take 4 GiB and some minutes.
LEFT_OUT: Final = {"PORT", "HEALTH_PORT", "METRICS_PORT", "ARGON2_MEMORY_KIB", "ARGON2_PASSES"}


def largest() -> dict[str, str]:
    """Return the largest value of each number, by its variable."""
    return {
        name: str(bound.le)
        for name, field in variables().items()
        for bound in field.metadata
        if isinstance(bound, Le) and name not in LEFT_OUT
    }


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_starts_with_the_largest_numbers(
    service: str, shared_databases: dict[str, TestDatabase], tmp_path: Path
) -> None:
    others = {"DATABASE_URL": shared_databases[service].url, "USER_SERVICE_URL": f"{LOOPBACK}:1"}
    numbers = largest()
    assert {"DATABASE_POOL_SIZE", "DRAIN_S", "MAX_CONNECTION_AGE_S"} <= numbers.keys()

    async with serving_process(service, tmp_path, **others | numbers) as replica:
        assert "Traceback" not in replica.output()
