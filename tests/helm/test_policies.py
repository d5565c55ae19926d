"""Rules for every pod, whatever the values."""

from __future__ import annotations

import json
from itertools import chain

import pytest
import yaml

from chassis.runtime.shutdown import _FORCED_AFTER_S
from chassis.server.settings import ServerSettings
from chassis.service import callers_of, services
from devstack.settings import REPOSITORY
from tests.helm.chart import SHAPES, Json, manifests, notes, pods

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
            secret = {"DATABASE_URL", "KEYS_SECRET", "REDIS_URL"}
            if name == "rate-limiter":  # it reads no files: an address without a password, and a Secret's key
                secret.remove("REDIS_URL")
                given = {each["name"]: each for each in container["env"]}
                assert "@" not in given["REDIS_URL"]["value"]
                assert "value" not in given["REDIS_AUTH"]
            assert not variables & secret, name
            assert "envFrom" not in container, name


def test_the_limiter_runs_as_with_compose() -> None:
    composed = yaml.safe_load((REPOSITORY / "docker" / "compose.limits.yaml").read_text())["services"]["rate-limiter"]
    [pod] = [pod for name, pod in pods("limits") if name == "rate-limiter"]
    [container] = pod["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    of_the_cluster = {"REDIS_URL", "REDIS_AUTH", "REDIS_TLS", "REDIS_TLS_CACERT", "CACHE_KEY_PREFIX"}

    assert container["image"] in composed["image"]
    assert {name: value for name, value in env.items() if name not in of_the_cluster} == {
        name: value for name, value in composed["environment"].items() if name not in of_the_cluster
    }


def test_the_limiter_has_the_limits_of_the_edge() -> None:
    every = dict(pods("limits"))
    [limits] = every["rate-limiter"]["initContainers"]
    [edge] = every["edge"]["containers"]

    assert limits["image"] == edge["image"]
    assert [each for each in limits["args"] if "limit=" in each] == [each for each in edge["args"] if "limit=" in each]
    assert "--rate-limiter=rate-limiter:8081" in edge["args"]
    assert not [each for each in dict(pods("default"))["edge"]["containers"][0]["args"] if "rate-limiter" in each]


@pytest.mark.parametrize("shape", SHAPES)
def test_helm_test_asks_whether_each_rollout_waits_for_dns(shape: str) -> None:
    [test] = [pod for name, pod in pods(shape) if name == "shop-health"]
    [asked] = [each["args"] for each in test["containers"] if each["name"] == "dns-cache"]
    services = {each["metadata"]["name"] for each in manifests(shape, "Service")}
    waits_s = {each["metadata"]["name"]: each["spec"].get("minReadySeconds") for each in _serving(shape)}

    named = dict(each.split("=") for each in asked)
    assert named.keys() == {name for name in services if name.endswith("-headless")}
    for name, ready_s in named.items():
        assert int(ready_s) == waits_s[name.removesuffix("-headless")]


def _serving(shape: str) -> list[Json]:
    """Return the Deployments that take calls: all but workers."""
    every = manifests(shape, "Deployment")
    return [each for each in every if not each["metadata"]["name"].endswith("-worker")]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_deployment_is_probed_and_replaced_without_a_gap(shape: str) -> None:
    for deployment in _serving(shape):
        spec = deployment["spec"]
        [container] = spec["template"]["spec"]["containers"]

        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert spec["template"]["spec"]["topologySpreadConstraints"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if deployment["metadata"]["name"] not in {"edge", "rate-limiter"}:
                assert container[probe]["grpc"]["port"] in {port["containerPort"] for port in container["ports"]}


def test_a_pod_is_given_the_time_that_it_needs_to_end() -> None:
    for deployment in _serving("default"):
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

    for deployment in _serving(shape):
        name = deployment["metadata"]["name"]
        assert name in budgets
        # Both would take turns in deciding.
        assert ("replicas" in deployment["spec"]) != (name in scaled)


def test_migrations_run_before_anything_else_of_a_release() -> None:
    jobs = manifests("production", "Job")

    assert {job["metadata"]["name"] for job in jobs} == {f"{service.host}-migrations" for service in services()}
    for job in jobs:
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        [volume] = job["spec"]["template"]["spec"]["volumes"]
        sources = [source["secret"] for source in volume["projected"]["sources"]]
        assert all(source["name"].endswith("-owner") for source in sources)
        # KEYS_SECRET is not for migrations. Only behind a pooler there is a second URL.
        keys = {item["key"]: source.get("optional", False) for source in sources for item in source["items"]}
        assert keys == {"DATABASE_URL": False, "DATABASE_DIRECT_URL": True}


def test_workers_know_the_database_and_redis_and_nothing_else() -> None:
    workers = {name: pod for name, pod in pods("production") if name.endswith("-worker")}

    assert workers.keys() == {f"{service.host}-worker" for service in services() if service.has_worker}
    for name, pod in workers.items():
        [volume] = pod["volumes"]
        files = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
        assert files == {"DATABASE_URL", "REDIS_URL"}
        [container] = pod["containers"]
        assert container["args"] == [name.rpartition("-")[2]]
        assert pod["terminationGracePeriodSeconds"] > _FORCED_AFTER_S


def test_a_worker_is_never_there_twice_during_a_rollout() -> None:
    for deployment in manifests("production", "Deployment"):
        if deployment["metadata"]["name"].endswith("-worker"):
            # The connections that refusals.yaml counts are for one at a time.
            assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_the_alerts_and_dashboards_are_those_of_the_documentation() -> None:
    documented = REPOSITORY / "docs" / "observability"
    [dashboards] = [each for each in manifests("production", "ConfigMap") if "dashboards" in each["metadata"]["name"]]

    assert {name: json.loads(text) for name, text in dashboards["data"].items()} == {
        path.name: json.loads(path.read_text()) for path in (documented / "dashboards").glob("*.json")
    }


def test_the_notes_say_that_events_wait_for_redis() -> None:
    assert "events wait" in notes("default")
    assert "events wait" not in notes("production")


def test_the_certificates_are_the_ones_that_the_other_side_expects() -> None:
    certificates = {each["metadata"]["name"]: each["spec"] for each in manifests("small", "Certificate")}

    for name in (*(service.host for service in services()), "edge"):
        assert certificates[name]["uris"] == [f"spiffe://shop/{name.replace('-', '_')}"]
        assert certificates[name]["dnsNames"] == [name]
        assert certificates[name]["secretName"] == f"{name}-tls"
    peers = {
        name: variable["value"]
        for name, pod in pods("small")
        for variable in pod["containers"][0].get("env", ())
        if variable["name"] == "TLS_ALLOWED_PEERS"
    }
    assert peers == {service.host: ",".join(callers_of(service, services())) for service in services()}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_certificate_says_whether_a_renewal_makes_a_new_key(shape: str) -> None:
    for each in manifests(shape, "Certificate"):
        # cert-manager's default has changed. With a new key the old and the new CA refuse each other's certificates.
        expected = "Never" if each["spec"].get("isCA") else "Always"
        assert each["spec"]["privateKey"]["rotationPolicy"] == expected, each["metadata"]["name"]
