"""Dashboards, alerts and their documents belong together."""

from __future__ import annotations

import copy
import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

DOCS: Final = Path(__file__).parents[4] / "docs"
FOLDER: Final = DOCS / "observability"
RULES: Final = yaml.safe_load((FOLDER / "rules.yaml").read_text())
ALERTS: Final = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDED: Final = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
_METRIC: Final = re.compile(r"\b(?:rpc_(?:server|client)_|db_client_|shop_|process_|envoy_)[a-z_]+(?=[\[{ )]|$)")


def test_every_alert_has_an_entry_in_the_runbook_and_a_test() -> None:
    headings = re.findall(r"^#+ (\w+)$", (DOCS / "runbook.md").read_text(), re.MULTILINE)
    tests = [test for path in FOLDER.glob("rules*_test.yaml") for test in yaml.safe_load(path.read_text())["tests"]]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if case.get("exp_alerts")}
    names = {alert["alert"] for alert in ALERTS}

    assert names <= set(headings)
    assert names - fired <= {"LatencyBudgetBurns"}  # the same numbers as LatencyBudgetBurnsFast, later
    for alert in ALERTS:
        assert alert["annotations"]["runbook_url"] == f"https://shop.example/docs/runbook.md#{alert['alert'].lower()}"


def test_alerts_and_dashboards_ask_only_for_metrics_that_are_documented() -> None:
    documented = set(re.findall(r"`(\w+)`", (DOCS / "observability.md").read_text()))
    expressions = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    expressions += [target["expr"] for board in dashboards().values() for target in targets(board)]
    asked = {re.sub(r"_(bucket|count|sum)$", "", name) for text in expressions for name in _METRIC.findall(text)}
    labels = {name for text in expressions for name in re.findall(r"(\w+)(?==|!=|=~)", text)}

    assert asked
    assert {name for name in asked - labels if name not in documented and f"{name}_count" not in documented} == set()


def test_dashboards_ask_for_recorded_numbers_that_exist() -> None:
    expressions = [target["expr"] for board in dashboards().values() for target in targets(board)]

    asked = {name for text in expressions for name in re.findall(r"\b(?:edge|job):\w+:\w+", text)}

    assert asked
    assert asked <= RECORDED


def test_the_dashboards_are_those_that_the_generator_makes() -> None:
    generated = runpy.run_path(str(FOLDER / "dashboards" / "generate.py"))["DASHBOARDS"]

    assert dashboards() == generated


def without_services_that_no_test_names(rules: dict[str, Any]) -> dict[str, Any]:
    """Return the rules, but for the parts about services without series in their tests: these would be missing."""
    named = {word for path in FOLDER.glob("rules*_test.yaml") for word in re.findall(r"\w+", path.read_text())}
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        if "absent(shop_process_info" in rule["expr"]:
            parts = [line.removeprefix("or ") for line in rule["expr"].splitlines()]
            rule["expr"] = "\nor ".join(part for part in parts if set(re.findall(r'job="(\w+)"', part)) <= named)
    return rules


def test_the_rules_do_what_their_tests_say(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: on Debian, apt-get install prometheus")

    for path in FOLDER.glob("rules*_test.yaml"):
        shutil.copy(path, tmp_path)
    rules = without_services_that_no_test_names(copy.deepcopy(RULES))
    (tmp_path / "rules.yaml").write_text(json.dumps(rules))  # JSON is YAML

    done = subprocess.run(
        [promtool, "test", "rules", *(path.name for path in FOLDER.glob("rules*_test.yaml"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def dashboards() -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in (FOLDER / "dashboards").glob("*.json")}


def targets(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for panel in board["panels"] for target in panel["targets"]]
