"""One Prometheus may watch several installations: an alert of one is never about another."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from devstack.services import SERVICES
from tests.integration.chassis.telemetry.test_observability import (
    ALERTS,
    FOLDER,
    RULES,
    dashboards,
    targets,
    without_services_that_no_test_names,
)

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]

EVERY: Final = 'namespace=~".*"'
"""The matcher that the chart replaces by that of its release."""
# An `absent` has the labels of its equality matchers alone: which namespace it misses, only the chart's rules say.
ABSENT: Final = {alert["alert"] for alert in ALERTS if "absent(" in alert["expr"]}
_RULES: Final = [rule for group in RULES["groups"] for rule in group["rules"]]
_TESTS: Final = sorted(FOLDER.glob("rules*_test.yaml"))
_WORDS: Final = {"and", "or", "unless", "bool", "offset"}


def selectors(expression: str) -> list[str]:
    """Return the matchers of each selector in an expression of PromQL; an empty text for one without any."""
    bare = re.sub(r'"[^"]*"', lambda text: text[0].translate({ord(each): "_" for each in "{}()[]"}), expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|ignoring|without|group_left|group_right) ?\([^)]*\)", "", bare)
    found = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?:\{([^}]*)\}|(?![\w:(]| ?\())", re.sub(r"\s+", " ", bare))
    return [matchers for name, matchers in found if name not in _WORDS]


def aggregations(expression: str) -> list[str]:
    """Return the labels that each aggregation keeps, in its `by`; an empty text for one without."""
    found = re.findall(r"\b(?:sum|min|max|avg|count|topk|quantile)\b ?(?:by ?\(([^)]*)\))?", expression)
    return [labels or "" for labels in found]


def test_the_parts_of_an_expression_are_found() -> None:
    text = 'sum by (a) (rate(x_total{l="{1}"}[5m])) / on (a) count(y) and job:z:rate5m > 2 * time() unless w{}'

    assert selectors(text) == ['l="_1_"', "", "", ""]
    assert aggregations(text) == ["a", ""]


@pytest.mark.parametrize("rule", _RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_looks_at_one_namespace_at_a_time(rule: Json) -> None:
    found = selectors(rule["expr"])

    assert found
    assert [matchers for matchers in found if not matchers.startswith('namespace=~"')] == []
    assert rule["expr"].count(EVERY) == len(found)
    assert [kept for kept in aggregations(rule["expr"]) if "namespace" not in kept.split(", ")] == []


def test_a_dashboard_shows_one_namespace_at_a_time() -> None:
    boards = dashboards()

    found = {text: selectors(text) for board in boards.values() for text in (each["expr"] for each in targets(board))}

    assert len(found) > 30
    everywhere = [text for text, each in found.items() if not all(m.startswith('namespace="$namespace"') for m in each)]
    assert everywhere == []
    assert all(found.values())
    for board in boards.values():
        assert "namespace" in {variable["name"] for variable in board["templating"]["list"]}


@pytest.mark.parametrize("path", _TESTS, ids=lambda path: path.name)
def test_alerts_of_one_namespace_ignore_the_metrics_of_another(path: Path, tmp_path: Path) -> None:
    """Every test of the rules once more, with its series in two namespaces, and with the rules of one of them."""
    # As text: YAML takes promtool's 0x21, which is 0 and 21 times 0 more, for a number.
    both = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    for test in both["tests"]:
        test["input_series"] = [_in(each, name) for name in ("live", "staging") for each in test["input_series"]]
        for case in test["alert_rule_test"]:
            case["exp_alerts"] = [
                _labelled(each, "live", rule=case["alertname"]) for each in case.get("exp_alerts", ())
            ]
        test.pop("promql_expr_test", None)

    assert_rules_pass(without_services_that_no_test_names(rules_of("live")), both, tmp_path)


@pytest.mark.parametrize("alert", sorted(ABSENT))
def test_an_installation_that_is_gone_is_missed_though_another_is_there(alert: str, tmp_path: Path) -> None:
    there = [f'envoy_server_live{{namespace="{name}", job="edge"}}' for name in ("live", "staging")]
    for service in SERVICES:
        for command in ("serve", "worker"):
            labels = f'job="{service.name}", command="{command}"'
            there += [f'shop_process_info{{namespace="{name}", {labels}}}' for name in ("live", "staging")]
    [rule] = [rule for rule in _RULES if rule.get("alert") == alert]
    missed = re.findall(r"absent\(([^)]+)\)", rule["expr"])
    test = {
        "interval": "1m",
        # All of staging stays; of the one that is gone, everything ends.
        "input_series": [{"series": each, "values": "1x5 stale" if '"live"' in each else "1x40"} for each in there],
        "alert_rule_test": [
            {"eval_time": "5m", "alertname": alert},
            {"eval_time": "30m", "alertname": alert, "exp_alerts": [_missing(rule, each) for each in missed]},
        ],
    }

    assert_rules_pass(rules_of("live"), {"evaluation_interval": "1m", "tests": [test]}, tmp_path)


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_every_process_of_every_service_is_missed(command: str) -> None:
    [rule] = [rule for rule in _RULES if "absent(" in rule["expr"] and f'command="{command}"' in rule["expr"]]

    assert set(re.findall(r'job="(\w+)"', rule["expr"])) == {service.name for service in SERVICES}


def rules_of(namespace: str) -> Json:
    """Return the rules as the chart of a release in this namespace has them."""
    replaced: Json = yaml.safe_load((FOLDER / "rules.yaml").read_text().replace(EVERY, f'namespace="{namespace}"'))
    return replaced


def assert_rules_pass(rules: Json, tests: Json, folder: Path) -> None:
    """Fail unless promtool says that the rules do what the tests expect."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: on Debian, apt-get install prometheus")
    (folder / "rules.yaml").write_text(json.dumps(rules))
    (folder / "test.yaml").write_text(json.dumps(tests | {"rule_files": ["rules.yaml"]}))  # JSON is YAML
    done = subprocess.run(
        [promtool, "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _in(series: Json, namespace: str) -> Json:
    return series | {"series": re.sub(r"\{", f'{{namespace="{namespace}", ', series["series"], count=1)}


def _labelled(alert: Json, namespace: str, *, rule: str) -> Json:
    texts = alert["exp_annotations"]
    if rule in ABSENT:
        # Their summary ends or continues after the missing label.
        missing = r"(no edge|no replica of \w+|^\w+(?= has no))"
        texts = texts | {"summary": re.sub(missing, rf"\1 in {namespace}", texts["summary"])}
    return {"exp_labels": alert["exp_labels"] | {"namespace": namespace}, "exp_annotations": texts}


def _missing(rule: Json, selector: str) -> Json:
    """Return the alert that is expected for one `absent` of the rule."""
    labels = dict(re.findall(r'(\w+)="([^"]+)"', selector)) | {"namespace": "live"}
    texts = {
        name: text.replace("{{ with $labels.namespace }} in {{ . }}{{ end }}", " in live").replace(
            "{{ $labels.job }}", labels["job"]
        )
        for name, text in rule["annotations"].items()
    }
    return {"exp_labels": labels | rule["labels"], "exp_annotations": texts}
