"""The chart counts the database connections of workers: as many as a worker of the service may open."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
import yaml

from chassis.database.settings import DatabaseSettings
from chassis.database.url import DatabaseUrl
from chassis.service import ROOT, Service, services

if TYPE_CHECKING:
    from chassis.events.commands import EventCommands


@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
def test_the_chart_counts_the_connections_of_each_worker(service: Service) -> None:
    events: EventCommands = importlib.import_module(f"{service.name}.worker").EVENTS
    settings = DatabaseSettings(url=DatabaseUrl.parse("postgresql://localhost/users"))

    known = yaml.safe_load((ROOT / "helm" / "shop" / "files" / "services.yaml").read_text())
    counted = known[service.host]["workerConnections"]

    # One more where the service has no part of its own.
    assert counted - 1 <= settings.for_parts(events.part_count).pool_size <= counted
