"""What must hold for every pod and every connection, whatever the values."""

from __future__ import annotations

import re
from itertools import chain

import pytest

from chassis.server import _FORCED_AFTER_S
from chassis.settings import ServerSettings
from devstack.settings import REPOSITORY
from tests.helm.chart import SHAPES, Json, manifests, pods

FINISH_S = 21  # of the edge: drain_s 5 and what envoy/run.py gives to calls in flight, 16


@pytest.mark.parametrize("shape", SHAPES)
def test_every_pod_is_restricted(shape: str) -> None:
    for name, pod in pods(shape):
        context = pod["securityContext"]

        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["serviceAccountName"] != "default", name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert all("hostPath" not in volume for volume in pod.get("volumes", ())), name


@pytest.mark.parametrize("shape", SHAPES)
def test_every_container_is_locked_down_and_limited(shape: str) -> None:
    for name, pod in pods(shape):
        for container in chain(pod["containers"], pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            for side in ("requests", "limits"):
                assert container["resources"][side].keys() >= {"cpu", "memory"}, name
            assert not container["image"].endswith((":", ":latest")), name


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_secret_is_in_an_environment(shape: str) -> None:
    for name, pod in pods(shape):
        for container in pod["containers"]:
            variables = {each["name"] for each in container.get("env", ())}
            assert not variables & {"DATABASE_URL", "KEYS_SECRET", "REDIS_URL"}, name
            assert "envFrom" not in container, name


@pytest.mark.parametrize("shape", SHAPES)
def test_every_deployment_is_probed_and_replaced_without_a_gap(shape: str) -> None:
    for deployment in manifests(shape, "Deployment"):
        spec = deployment["spec"]
        [container] = spec["template"]["spec"]["containers"]

        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert spec["template"]["spec"]["topologySpreadConstraints"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if deployment["metadata"]["name"] != "edge":
                assert container[probe]["grpc"]["port"] in {port["containerPort"] for port in container["ports"]}


def test_a_pod_is_given_the_time_that_it_needs_to_end() -> None:
    for deployment in manifests("default", "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        before_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        settings = ServerSettings()
        needs_s = FINISH_S if deployment["metadata"]["name"] == "edge" else _FORCED_AFTER_S

        assert settings.drain_s + settings.stop_grace_s < _FORCED_AFTER_S
        assert before_s + needs_s < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_deployment_has_a_budget_and_replicas_or_a_scaler(shape: str) -> None:
    budgets = {each["metadata"]["name"] for each in manifests(shape, "PodDisruptionBudget")}
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in manifests(shape, "HorizontalPodAutoscaler")}

    for deployment in manifests(shape, "Deployment"):
        name = deployment["metadata"]["name"]
        assert name in budgets
        # Both would take turns in deciding.
        assert ("replicas" in deployment["spec"]) != (name in scaled)


def test_migrations_run_before_anything_else_of_a_release() -> None:
    jobs = manifests("production", "Job")

    assert {job["metadata"]["name"] for job in jobs} == {"user-svc-migrations", "order-svc-migrations"}
    for job in jobs:
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        [volume] = job["spec"]["template"]["spec"]["volumes"]
        assert volume["secret"]["secretName"].endswith("-owner")
        # KEYS_SECRET is not for migrations.
        assert [item["key"] for item in volume["secret"]["items"]] == ["DATABASE_URL"]


def _arrows_of_the_page() -> set[tuple[str, str]]:
    """Return who talks to whom, as the flowchart of docs/architecture.md has it."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    chart = re.search(r"```mermaid\nflowchart LR\n(.*?)```", page, re.DOTALL)
    assert chart
    arrows = re.findall(r"^ *(\w+)(?:[\[(].*?[\])]+)? *-->(?:\|[^|]*\|)? *(\w+)", chart[1], re.MULTILINE)
    databases = {"users": "database", "orders": "database"}
    return {(_component(a), databases.get(b, _component(b))) for a, b in arrows} | {
        # What migrates is a service too, and the page shows processes that stay.
        ("user-svc-migrations", "database"),
        ("order-svc-migrations", "database"),
    }


def _component(name: str) -> str:
    return {"user": "user-svc", "order": "order-svc"}.get(name, name)


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
    leaving = {
        (mine, theirs)
        for rule in spec.get("egress", ())
        for theirs in _peers(rule, "to", port=5432, otherwise="database")
        for mine in own
    }
    entering = {
        (theirs, mine)
        for rule in spec.get("ingress", ())
        for theirs in _peers(rule, "from", port=0, otherwise="caller")
        for mine in own
    }
    return leaving, entering


def _peers(rule: Json, side: str, *, port: int, otherwise: str) -> list[str]:
    ports = {each["port"] for each in rule["ports"]}
    if ports == {53}:
        return []
    peers = [peer for each in rule.get(side, ()) if "podSelector" in each for peer in _selected(each["podSelector"])]
    if not peers:
        assert not port or ports == {port}
        return [otherwise]
    return peers


def test_the_arrows_of_the_network_are_those_of_the_architecture() -> None:
    policies = manifests("default", "NetworkPolicy")
    sides = [_sides(policy) for policy in policies]
    leaving = set[tuple[str, str]]().union(*(each[0] for each in sides)) - {("test", "edge")}
    entering = set[tuple[str, str]]().union(*(each[1] for each in sides))

    arrows = _arrows_of_the_page()
    assert leaving == {arrow for arrow in arrows if arrow[0] != "caller"}
    assert entering == {arrow for arrow in arrows if arrow[1] != "database"}


def test_without_a_policy_that_allows_it_nothing_talks() -> None:
    [nothing] = [each for each in manifests("default", "NetworkPolicy") if each["metadata"]["name"] == "shop-nothing"]

    assert nothing["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & nothing["spec"].keys()
    for _, template in _templates():
        assert nothing["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_the_certificates_are_the_ones_that_the_other_side_expects() -> None:
    certificates = {each["metadata"]["name"]: each["spec"] for each in manifests("small", "Certificate")}

    for name in ("user-svc", "order-svc", "edge"):
        assert certificates[name]["uris"] == [f"spiffe://shop/{name.replace('-', '_')}"]
        assert certificates[name]["dnsNames"] == [name]
        assert certificates[name]["secretName"] == f"{name}-tls"
    peers = {
        name: variable["value"]
        for name, pod in pods("small")
        for variable in pod["containers"][0].get("env", ())
        if variable["name"] == "TLS_ALLOWED_PEERS"
    }
    assert peers == {"user-svc": "edge,order_svc", "order-svc": "edge"}


def _templates() -> list[tuple[str, Json]]:
    every = [*manifests("default", "Deployment"), *manifests("default", "Job")]
    return [(each["metadata"]["name"], each["spec"]["template"]) for each in every]
