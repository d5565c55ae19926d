"""The chart on Kubernetes' own API server: it installs, upgrades, goes back and leaves nothing behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import yaml

from chassis.service import services
from tests.helm.chart import CHART, SHAPES, values_file
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.cluster import Cluster
    from tests.kubernetes.control_plane import Kubelet

DEPLOYMENTS = {"edge", *(service.host for service in services())}
KINDS = ("deployments", "jobs", "services", "networkpolicies", "horizontalpodautoscalers")
BASE = "image: {registry: registry.example/shop}\n"
# Helm 4 has the server merge what it applies, Helm 3 does that itself.
with_either_helm = pytest.mark.parametrize("cluster", ["helm", "helm3"], indirect=True)


@with_either_helm
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_installs_runs_and_leaves_nothing(cluster: Cluster, shape: str) -> None:
    before = cluster.names("serviceaccounts")

    cluster.upgrade("--wait", "--timeout", "4m", values=CHART / "ci" / f"{shape}-values.yaml")

    for name in cluster.names("deployments"):
        assert cluster.get("deployments", name)["status"]["availableReplicas"] >= 1, name
    assert cluster.helm("uninstall", "shop", "--wait").returncode == 0
    for kind in KINDS:
        assert not cluster.names(kind), kind
    assert cluster.names("serviceaccounts") <= before | {"default"}


@with_either_helm
def test_an_upgrade_changes_the_image(cluster: Cluster) -> None:
    cluster.upgrade()

    cluster.upgrade("--set", "image.tag=0.2.0", "--wait")

    [container] = cluster.get("deployments", "edge")["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith("/edge:0.2.0")


@with_either_helm
def test_turning_autoscaling_on_removes_no_pod(cluster: Cluster) -> None:
    cluster.upgrade("--set", "services.order-svc.replicas=4")
    fewest = _Fewest(cluster, "order-svc")

    with fewest:
        cluster.upgrade(
            "--set",
            "serviceDefaults.autoscaling.enabled=true,serviceDefaults.poolSize=4",
            "--set",
            "edge.autoscaling.enabled=true",
        )
        until(lambda: cluster.names("horizontalpodautoscalers") == DEPLOYMENTS)

    assert fewest.seen == 4
    assert cluster.replicas("edge") == 2


@with_either_helm
def test_an_upgrade_keeps_the_number_that_an_autoscaler_has_chosen(cluster: Cluster) -> None:
    defaults = "serviceDefaults: {poolSize: 4, autoscaling: {enabled: true, minReplicas: 2}}\n"
    with values_file(BASE + defaults) as values:
        cluster.upgrade(values=values)
        until(lambda: cluster.replicas("order-svc") == 2)
        cluster.scale("order-svc", 5)

        cluster.upgrade("--set", "image.tag=0.2.0", values=values)

        assert cluster.replicas("order-svc") == 5


def test_turning_autoscaling_off_sets_the_number_of_the_values(cluster: Cluster) -> None:
    cluster.upgrade("--set", "edge.autoscaling.enabled=true")
    # Not by minReplicas: the autoscaler might set that once more after the upgrade has set its number.
    cluster.scale("edge", 4)

    cluster.upgrade("--force-conflicts")

    assert cluster.replicas("edge") == 2


@with_either_helm
def test_an_upgrade_keeps_the_number_of_an_emergency(cluster: Cluster) -> None:
    cluster.upgrade()
    cluster.scale("edge", 7)

    cluster.upgrade("--set", "image.tag=0.2.0")

    assert cluster.replicas("edge") == 7


def test_the_way_back_after_an_emergency_is_the_one_of_the_manual(cluster: Cluster) -> None:
    cluster.upgrade()
    cluster.upgrade("--set", "image.tag=0.2.0")
    cluster.scale("edge", 7)

    refused = cluster.helm("rollback", "shop", "1")
    done = cluster.helm("rollback", "shop", "1", "--force-conflicts")

    assert 'conflict with "kubectl"' in refused.stderr
    assert done.returncode == 0, done.stderr
    assert cluster.replicas("edge") == 2


def test_the_way_back_beside_an_autoscaler_is_the_one_of_the_manual(cluster: Cluster) -> None:
    autoscaling = ("--set", "edge.autoscaling.enabled=true")
    cluster.upgrade(*autoscaling)
    until(lambda: cluster.replicas("edge") == 2)
    cluster.upgrade(*autoscaling, "--set", "image.tag=0.2.0")
    cluster.upgrade(*autoscaling, "--set", "image.tag=0.3.0")
    cluster.raise_minimum("edge", 4)
    until(lambda: cluster.replicas("edge") == 4)

    refused = cluster.helm("rollback", "shop", "2")
    done = cluster.helm("rollback", "shop", "2", "--force-conflicts")

    assert 'conflict with "kube-controller-manager"' in refused.stderr
    assert done.returncode == 0, done.stderr
    assert cluster.replicas("edge") == 2


@with_either_helm
def test_an_upgrade_of_a_stopped_system_starts_no_pod(cluster: Cluster) -> None:
    cluster.upgrade()
    for name in DEPLOYMENTS:
        cluster.scale(name, 0)

    cluster.upgrade()

    assert {cluster.replicas(name) for name in DEPLOYMENTS} == {0}


@with_either_helm
def test_a_new_number_in_the_values_counts(cluster: Cluster) -> None:
    cluster.upgrade()

    cluster.upgrade("--set", "edge.replicas=3")

    assert cluster.replicas("edge") == 3


@with_either_helm
def test_a_migration_that_fails_stops_the_upgrade(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.upgrade()
    kubelet.job_phase = "Failed"

    with values_file(BASE + "serviceDefaults: {migrations: {timeoutSeconds: 10}}\nimage: {tag: 0.2.0}\n") as values:
        done = cluster.helm(
            "upgrade", "shop", str(CHART), "--values", str(values), "--set", "image.registry=r.example/s"
        )

    assert "pre-upgrade hooks failed" in done.stderr
    [container] = cluster.get("deployments", "edge")["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith("/edge:0.1.0")


def test_an_installation_that_failed_is_repeated_by_the_same_command(cluster: Cluster, kubelet: Kubelet) -> None:
    kubelet.job_phase = "Failed"
    failed = cluster.helm(
        "upgrade", "--install", "shop", str(CHART), "--set", "image.registry=r.example/s",
        "--set", "serviceDefaults.migrations.timeoutSeconds=10",
    )  # fmt: skip
    kubelet.job_phase = "Succeeded"

    cluster.upgrade()

    assert failed.returncode != 0
    assert cluster.names("deployments") == DEPLOYMENTS


def test_a_slow_migration_ends_before_helm_gives_up(cluster: Cluster, kubelet: Kubelet) -> None:
    kubelet.job_phase = "Running"

    done = cluster.helm(
        "upgrade", "--install", "shop", str(CHART), "--set", "image.registry=r.example/s",
        "--set", "serviceDefaults.migrations.timeoutSeconds=10", "--timeout", "1m",
    )  # fmt: skip

    assert done.returncode != 0
    conditions = [each for name in cluster.names("jobs") for each in cluster.get("jobs", name)["status"]["conditions"]]
    assert {each["reason"] for each in conditions} == {"DeadlineExceeded"}


def test_a_migration_finds_the_policies_that_let_it_reach_its_database(cluster: Cluster, kubelet: Kubelet) -> None:
    # In a namespace that denies everything by default the Job could reach neither DNS nor PostgreSQL.
    kubelet.job_phase = "Running"
    upgrade = threading.Thread(target=cluster.upgrade)
    upgrade.start()
    until(lambda: bool(cluster.names("jobs")), timeout_s=60)

    policies = cluster.names("networkpolicies")
    kubelet.job_phase = "Succeeded"
    upgrade.join()

    assert {f"{service.host}-migrations-to-database" for service in services()} <= policies


@with_either_helm
@pytest.mark.parametrize("enabled", ["true", "false"])
def test_another_chart_has_it_as_a_dependency_with_a_condition(cluster: Cluster, enabled: str, tmp_path: Path) -> None:
    dependency = {"name": "shop", "version": "*", "repository": f"file://{CHART}", "condition": "shop.enabled"}
    about = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(about))
    values = tmp_path / "values.yaml"
    values.write_text(f"shop: {{enabled: {enabled}, image: {{registry: registry.example/shop}}}}\n")
    assert cluster.helm("dependency", "build", str(tmp_path), "--skip-refresh").returncode == 0

    cluster.upgrade("--wait", chart=tmp_path, values=values)

    assert cluster.names("deployments") == (DEPLOYMENTS if enabled == "true" else set())


def test_another_chart_has_it_twice(cluster: Cluster, tmp_path: Path) -> None:
    aliases = ("north", "south")
    dependency = {"name": "shop", "version": "*", "repository": f"file://{CHART}"}
    dependencies = [{**dependency, "alias": alias} for alias in aliases]
    about = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": dependencies}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(about))
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(dict.fromkeys(aliases, yaml.safe_load(BASE))))
    assert cluster.helm("dependency", "build", str(tmp_path), "--skip-refresh").returncode == 0

    cluster.upgrade("--wait", chart=tmp_path, values=values)

    assert cluster.names("deployments") == {f"{alias}-{name}" for alias in aliases for name in DEPLOYMENTS}


@with_either_helm
def test_a_second_release_in_a_namespace_needs_names_of_its_own(cluster: Cluster) -> None:
    cluster.upgrade()
    values = str(CHART / "ci" / "default-values.yaml")

    refused = cluster.helm("install", "second", str(CHART), "--values", values)
    done = cluster.helm("install", "second", str(CHART), "--values", values, "--set", "fullnameOverride=second")

    assert "the Deployment edge belongs to the release shop" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert cluster.names("deployments") == DEPLOYMENTS | {f"second-{name}" for name in DEPLOYMENTS}
    assert cluster.helm("uninstall", "second", "--wait").returncode == 0
    assert cluster.names("deployments") == DEPLOYMENTS
    assert not [each for kind in KINDS for each in cluster.names(kind) if each.startswith("second")]


@with_either_helm
def test_an_object_that_becomes_a_hook_stays(cluster: Cluster) -> None:
    about: dict[str, object] = {"name": "beside"}
    beside = {"extraObjects": [{"apiVersion": "v1", "kind": "Secret", "metadata": about}]}
    with values_file(BASE + yaml.safe_dump(beside)) as values:
        cluster.upgrade(values=values)
    about["annotations"] = {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-weight": "-20",
        "helm.sh/resource-policy": "keep",
    }

    with values_file(BASE + yaml.safe_dump(beside)) as values:
        cluster.upgrade(values=values)

    assert "beside" in cluster.names("secrets")


class _Fewest:
    """The smallest number of replicas of a Deployment that was observed."""

    def __init__(self, cluster: Cluster, deployment: str) -> None:
        self._cluster = cluster
        self._deployment = deployment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen = cluster.replicas(deployment)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopping.wait(0.02):
            self.seen = min(self.seen, self._cluster.replicas(self._deployment))
