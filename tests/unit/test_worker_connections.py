"""The chart counts the database connections of workers: as many as a worker of any service may open."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

from chassis.database.settings import DatabaseSettings
from chassis.database.url import DatabaseUrl
from chassis.service import ROOT, services

if TYPE_CHECKING:
    from chassis.events.commands import EventCommands


def test_the_chart_counts_the_connections_of_the_largest_worker() -> None:
    settings = DatabaseSettings(url=DatabaseUrl.parse("postgresql://localhost/users"))
    opened = []
    for service in services():
        events: EventCommands = importlib.import_module(f"{service.name}.worker").EVENTS
        opened.append(settings.for_parts(events.part_count).pool_size)
    refusals = (ROOT / "helm" / "shop" / "templates" / "refusals.yaml").read_text()
    [counted] = re.findall(r"\(mul \(int \$service\.worker\.replicas\) (\d+)\)", refusals)

    assert max(opened) == int(counted)
    assert f"replicas x {counted} of workers" in refusals
