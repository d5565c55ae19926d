"""The network policies allow the arrows of docs/architecture.md and no others, whatever the values."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from chassis.service import callers_of, services
from devstack.settings import REPOSITORY
from tests.helm.chart import Json, manifests

if TYPE_CHECKING:
    from chassis.service import Service

STORES = {"database", "redis"}
OUTSIDE = {
    frozenset({5432}): "database",
    frozenset({6379}): "redis",
    frozenset({6390}): "limits",  # the Redis of the limiter, in the values of that shape
    frozenset({6380, 26380}): "redis",  # as production's values have it, with Sentinels
    frozenset({8080, 8443}): "caller",
    frozenset({9464, 9903}): "scraper",
    frozenset({4317}): "collector",
}
"""The peer of a rule that names no pods, by its ports."""


def _arrows_of_the_page() -> set[tuple[str, str]]:
    """Return who calls whom, as the flowchart of docs/architecture.md has it."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    chart = re.search(r"```mermaid\nflowchart LR\n(.*?)```", page, re.DOTALL)
    assert chart
    arrows = {
        # Stores open no connections: their clients connect to them.
        (b, a) if a in STORES else (a, b)
        for line in chart[1].splitlines()
        for a, b in pairwise(_component(name) for name in re.findall(r"(?:^|-->(?:\|[^|]*\|)?) *(\w+)", line))
    }
    # A migration runs as the service, and the page shows long-running processes only.
    arrows |= {(f"{service.host}-migrations", "database") for service in services()}
    shown = {name for arrow in arrows for name in arrow}
    # The page explains the architecture by the services that it shows: one that is not there has the same arrows.
    return arrows.union(*(_arrows_of(service) for service in services() if service.host not in shown))


def _arrows_of(service: Service) -> set[tuple[str, str]]:
    callers, called = callers_of(service, services()), service.calls
    pairs = [*((caller, service.name) for caller in callers), *((service.name, each) for each in called)]
    arrows = {(a.replace("_", "-"), b.replace("_", "-")) for a, b in pairs} | {(service.host, "database")}
    if service.has_worker:
        arrows |= {(f"{service.host}-worker", store) for store in STORES}
    return arrows


def _component(name: str) -> str:
    if name in {"users", "orders"}:
        return "database"
    return re.sub("^(user|order)(?=$|_)", r"\1-svc", name).replace("_", "-")


def _selected(selector: Json) -> list[str]:
    """Return the components that a selector stands for."""
    if component := selector.get("matchLabels", {}).get("app.kubernetes.io/component"):
        return [component]
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In"
        return list(expression["values"])
    return ["everybody"]


def _sides(policy: Json) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return the arrows whose beginning, and those whose end, the policy allows."""
    own, spec = _selected(policy["spec"]["podSelector"]), policy["spec"]
    leaving = {(mine, theirs) for rule in spec.get("egress", ()) for theirs in _peers(rule, "to") for mine in own}
    entering = {(theirs, mine) for rule in spec.get("ingress", ()) for theirs in _peers(rule, "from") for mine in own}
    return leaving, entering


def _peers(rule: Json, side: str) -> list[str]:
    ports = frozenset(each["port"] for each in rule["ports"])
    if ports == {53}:
        return []
    peers = [peer for each in rule.get(side, ()) if "podSelector" in each for peer in _selected(each["podSelector"])]
    return peers or [OUTSIDE[ports]]


def _arrows_of_the_network(shape: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return what the policies let leave and what they let in."""
    sides = [_sides(policy) for policy in manifests(shape, "NetworkPolicy")]
    leaving = set[tuple[str, str]]().union(*(each[0] for each in sides)) - {("test", "edge")}
    return leaving, set[tuple[str, str]]().union(*(each[1] for each in sides))


def test_the_arrows_of_the_network_are_those_of_the_architecture() -> None:
    leaving, entering = _arrows_of_the_network("load-balancer")

    arrows = _arrows_of_the_page()
    assert leaving == {arrow for arrow in arrows if arrow[0] != "caller"}
    assert entering == {arrow for arrow in arrows if arrow[1] not in STORES}


def test_the_limiter_is_asked_by_the_edge_and_asks_its_redis_and_nobody_else() -> None:
    leaving, entering = _arrows_of_the_network("limits")
    arrows = _arrows_of_the_page()

    more = {("edge", "rate-limiter"), ("rate-limiter", "limits")}
    assert leaving - arrows == more
    assert {arrow for arrow in entering - arrows if arrow[0] != "scraper"} == {("edge", "rate-limiter")}
    processes = {each["metadata"]["name"] for each in manifests("limits", "Deployment")}
    assert {arrow[1] for arrow in entering if arrow[0] == "scraper"} == processes


def test_without_redis_nothing_is_there_that_would_need_it() -> None:
    leaving, _ = _arrows_of_the_network("default")

    processes = {each["metadata"]["name"] for each in manifests("default", "Deployment")}
    assert processes == {"edge", *(service.host for service in services())}
    assert {arrow for arrow in leaving if not arrow[0].endswith("-migrations")} == {
        arrow for arrow in _arrows_of_the_page() if arrow[0] in processes
    }


def test_observation_adds_metrics_in_and_traces_out_for_every_process_and_nothing_else() -> None:
    leaving, entering = _arrows_of_the_network("production")
    processes = {each["metadata"]["name"] for each in manifests("production", "Deployment")}

    arrows = _arrows_of_the_page()
    assert leaving - arrows == {(process, "collector") for process in processes}
    assert entering - arrows == {("scraper", process) for process in processes} | {("test", "edge")}


def test_every_process_serves_metrics_where_scrapers_are_let_in_and_monitors_look() -> None:
    [policy] = [each for each in manifests("production", "NetworkPolicy") if "scrapers" in each["metadata"]["name"]]
    allowed = {port["port"] for port in policy["spec"]["ingress"][0]["ports"]}
    monitored = {
        component: endpoint["relabelings"][0]["replacement"]
        for monitor in manifests("production", "PodMonitor")
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
        for component in _selected({"matchExpressions": monitor["spec"]["selector"]["matchExpressions"]})
    }

    for deployment in manifests("production", "Deployment"):
        name = deployment["metadata"]["name"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        [port] = [each["containerPort"] for each in container["ports"] if each["name"] == "metrics"]
        told = {f"METRICS_PORT={each['value']}" for each in container.get("env", ()) if each["name"] == "METRICS_PORT"}
        assert port in allowed
        assert f"METRICS_PORT={port}" in told or f"--metrics-port={port}" in container["args"]
        # A job is a service, by the name that it has in the alerts.
        assert monitored[name] == "_".join(name.split("-")[:2])


def test_without_a_policy_that_allows_it_nothing_talks() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in manifests("production", "NetworkPolicy")}
    nothing = policies["shop-nothing"]

    assert nothing["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & nothing.keys()
    for _, template in _templates():
        assert nothing["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def _templates() -> list[tuple[str, Json]]:
    every = [*manifests("production", "Deployment"), *manifests("production", "Job")]
    return [(each["metadata"]["name"], each["spec"]["template"]) for each in every]
