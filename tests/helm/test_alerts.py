"""The alerts of a release are about its own namespace, in the words of those whom they wake."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from chassis.service import services
from devstack.settings import REPOSITORY
from tests.helm.chart import CHART, helm, manifests

_PLAIN = (REPOSITORY / "docs" / "observability" / "rules.yaml").read_text()
_ON = ("image.registry=r/s", "observability.prometheusRule.enabled=true")


def rules_of(*settings: str, namespace: str = "live") -> dict[str, dict[str, Any]]:
    """Return the rules of a release by name."""
    flags = [flag for each in (*_ON, *settings) for flag in ("--set", each)]
    done = helm("template", "shop", str(CHART), "--namespace", namespace, *flags)
    assert done.returncode == 0, done.stderr
    [rule] = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "PrometheusRule"]
    return by_name(rule["spec"])


def by_name(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rules = [rule for group in spec["groups"] for rule in group["rules"]]
    return {rule.get("alert") or rule["record"]: rule for rule in rules}


def test_the_rules_are_the_documented_ones_for_the_release_s_namespace() -> None:
    expected = by_name(yaml.safe_load(_PLAIN.replace('namespace=~".*"', 'namespace="live"')))

    assert {name: tidy(rule) for name, rule in rules_of("redis.existingSecret=r").items()} == {
        name: tidy(rule) for name, rule in expected.items()
    }


def test_severities_the_runbook_and_the_outbox_s_disk_are_the_operator_s() -> None:
    rules = rules_of(
        "observability.prometheusRule.runbookUrl=https://wiki.example/shop",
        "observability.prometheusRule.severities.page=ticket",  # not to be taken for the other
        "observability.prometheusRule.severities.ticket=P4",
        "observability.prometheusRule.outboxBytes=5368709120",
    )

    alerts = {name: rule for name, rule in rules.items() if "alert" in rule}
    assert alerts["EdgeMissing"]["labels"]["severity"] == "ticket"
    assert alerts["OutboxLarge"]["labels"]["severity"] == "P4"
    assert {rule["labels"]["severity"] for rule in alerts.values()} == {"ticket", "P4"}
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example/shop#{name.lower()}"
    assert alerts["OutboxLarge"]["expr"].endswith("> 5368709120")


def test_without_redis_no_worker_is_missed() -> None:
    assert "WorkerMissing" not in rules_of()


def test_each_service_of_the_release_is_missed() -> None:
    expression = rules_of()["ServiceMissing"]["expr"]

    assert [line.removeprefix("or ") for line in expression.splitlines()] == [
        f'absent(shop_process_info{{namespace="live", job="{job}", command="serve"}})'
        for job in sorted(service.name for service in services())
    ]


@pytest.mark.parametrize("alert", ["EdgeMissing", "ServiceMissing", "WorkerMissing"])
def test_what_a_release_misses_no_other_one_of_its_namespace_hides(alert: str) -> None:
    monitored = "observability.podMonitors.enabled=true", "observability.scrapers[0].podSelector.matchLabels.a=b"
    rules = rules_of("redis.existingSecret=r", "fullnameOverride=staging", *monitored)

    selectors = re.findall(r"absent\((?:\w+)\{(.+?)\}\)", rules[alert]["expr"])

    assert selectors
    assert all('namespace="live", installation="staging"' in each for each in selectors)


def test_every_monitor_names_its_installation() -> None:
    for each in manifests("production", "PodMonitor"):
        [endpoint] = each["spec"]["podMetricsEndpoints"]
        assert {"targetLabel": "installation", "replacement": "shop"} in endpoint["relabelings"]


def test_without_the_chart_s_monitors_no_label_of_theirs_is_asked_for() -> None:
    assert not [name for name, rule in rules_of("redis.existingSecret=r").items() if "installation=" in rule["expr"]]


def tidy(rule: dict[str, Any]) -> dict[str, Any]:
    return rule | {"expr": rule["expr"].strip()}
