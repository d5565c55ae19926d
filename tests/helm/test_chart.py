"""Kubernetes accepts every manifest of the chart; values that would not run are refused."""

from __future__ import annotations

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from envoy.environments import SERVICE_PORT, kubernetes
from helm import readme
from tests.helm.chart import CHART, SHAPES, helm, manifests, pods, rendered

# The oldest that Chart.yaml allows, and the newest that the validator knows.
VERSIONS = ["1.30", "1.37"]
# Custom resources, of which the validator knows nothing.
OTHERS = {"Certificate", "Issuer", "HTTPRoute", "PodMonitor", "Probe", "PrometheusRule"}


@pytest.mark.parametrize("shape", SHAPES)
def test_helm_finds_nothing_to_complain_about(shape: str) -> None:
    done = helm("lint", "--strict", "--quiet", str(CHART), "--values", str(CHART / "ci" / f"{shape}-values.yaml"))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_kubernetes_takes_every_manifest(shape: str, version: str) -> None:
    known = [manifest for manifest in manifests(shape) if manifest["kind"] not in OTHERS]

    assert known
    for manifest in known:
        # A removed API has no schema in that version, which is an error here and not a warning.
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_removed_api_is_refused() -> None:
    gone = {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"}, "spec": {}}

    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate(gone, VERSIONS[0], strict=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_names_are_unique_and_nothing_is_rendered_as_go_prints_it(shape: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests(shape)]

    assert len(names) == len(set(names))
    assert not re.search(r"%!|<no value>|map\[", rendered(shape))


def test_the_edge_looks_for_the_services_where_they_are() -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in manifests("default", "Service")}

    for cluster in kubernetes().clusters:
        assert cluster.dns
        spec = services[cluster.dns.host]
        assert spec["clusterIP"] == "None"
        assert [port["port"] for port in spec["ports"]] == [cluster.dns.port] == [SERVICE_PORT]
        assert spec["selector"]["app.kubernetes.io/component"] == cluster.name.replace("_", "-")


def test_the_edge_knows_the_options_that_it_is_given() -> None:
    [edge] = [spec for name, spec in pods("production") if name == "edge"]
    known = Path("envoy/__main__.py").read_text()
    options = edge["containers"][0]["args"]

    for option in options:
        name = option.partition("=")[0].removeprefix("--")
        assert name.replace("-", "_") in known or f"--{name}" in known, option
    assert {"--traces-to=collector.monitoring:4317", "--trace-sampling=0.5"} <= set(options)


def test_every_value_is_described_and_in_the_schema() -> None:
    values = list(readme.values((CHART / "values.yaml").read_text()))

    assert len(values) > 40
    assert readme.table((CHART / "values.yaml").read_text()) in (CHART / "README.md").read_text()


def test_a_value_without_a_description_is_found() -> None:
    with pytest.raises(readme.Undescribed, match=r"edge\.naked"):
        list(readme.values("# An edge.\nedge:\n  naked: 1\n"))


def test_chart_and_images_have_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = re.search(r'^version = "(.+)"$', Path("pyproject.toml").read_text(), re.MULTILINE)

    assert project
    assert chart["appVersion"] == project[1]
