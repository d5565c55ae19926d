"""The files that follow from the declarations, also for a service without calls, events and secrets."""

from __future__ import annotations

import pytest
import yaml

from chassis.service import Service, services
from devstack import derived

SILENT = Service(name="silent_svc", collection="silents", serves=("shop.silent.v1.SilentService",), modules={})


@pytest.fixture(autouse=True)
def _one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (*services(), SILENT)
    monkeypatch.setattr(derived, "services", lambda: found)


@pytest.mark.parametrize("name", derived.TEMPLATES)
def test_every_file_is_yaml_and_names_the_service(name: str) -> None:
    text = derived.render(name)

    assert yaml.safe_load(text)
    assert "silent" in text


def test_a_service_without_events_has_no_worker() -> None:
    composed = yaml.safe_load(derived.render("docker/compose.yaml"))["services"]
    values = yaml.safe_load(derived.render("helm/shop/values.yaml"))["services"]

    assert {"silent-svc", "silent-svc-migrate"} <= composed.keys()
    assert "silent-svc-worker" not in composed
    assert values["silent-svc"] == {"worker": {"replicas": 0}}
    assert 'job="silent_svc", command="worker"' not in derived.render("docs/observability/rules.yaml")
