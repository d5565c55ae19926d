"""Names can be set, and two releases in one namespace then share nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from chassis.service import services
from envoy.environments import kubernetes
from tests.helm.chart import CHART, SHAPES, Json, helm, manifests, named, refusal

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

REFERENCES = {"secretName", "serviceAccountName"}
"""Keys by which one object names another; `name` below the keys of `NAMING` does too."""

NAMING = {"issuerRef", "scaleTargetRef", "service", "backendRefs"}


def references(node: Any, *, within: str = "") -> Iterator[str]:
    """Yield the names by which the manifest refers to other objects."""
    if isinstance(node, list):
        for each in node:
            yield from references(each, within=within)
    elif isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str) and (key in REFERENCES or (key == "name" and within in NAMING)):
                yield value
            else:
                yield from references(value, within=key)


def texts(node: Any) -> Iterator[str]:
    """Yield every text of the values."""
    if isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from texts(each)
    elif isinstance(node, str):
        yield node


@pytest.mark.parametrize("shape", SHAPES)
def test_every_name_begins_with_the_one_that_is_set(shape: str) -> None:
    given = set(texts(yaml.safe_load((CHART / "ci" / f"{shape}-values.yaml").read_text())))

    for each in named(shape, "--set", "fullnameOverride=second"):
        name = each["metadata"]["name"]
        assert name == "second" or name.startswith("second-"), name
        for reference in references(each):
            assert reference in given or reference.startswith("second-"), (name, reference)


def test_without_a_name_nothing_is_named_anew() -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in manifests("default")}

    # If a Deployment's name changes, an upgrade makes a new one instead of replacing it.
    assert {("Deployment", "edge"), ("Service", "edge"), ("Service", "user-svc-headless")} <= names


def test_two_releases_have_no_object_in_common() -> None:
    first = {(each["kind"], each["metadata"]["name"]) for each in manifests("production")}
    second = {(each["kind"], each["metadata"]["name"]) for each in named("production", "--set", "fullnameOverride=b")}

    assert not first & second
    assert len(first) == len(second)


def test_an_edge_with_a_name_looks_for_services_with_that_name() -> None:
    every = named("default", "--set", "fullnameOverride=second")
    found = {each["metadata"]["name"] for each in every if each["kind"] == "Service"}
    [edge] = [each for each in every if each["kind"] == "Deployment" and each["metadata"]["name"] == "second-edge"]
    [option] = [
        each for each in edge["spec"]["template"]["spec"]["containers"][0]["args"] if each.startswith("--prefix=")
    ]

    hosts = {each.dns.host for each in kubernetes(prefix=option.removeprefix("--prefix=")).clusters if each.dns}

    assert hosts == {f"second-{service.host}-headless" for service in services()}
    assert hosts <= found


def test_the_label_of_a_name_selects_its_pods() -> None:
    for each in named("production", "--set", "nameOverride=stage"):
        assert each["metadata"]["labels"]["app.kubernetes.io/name"] == "stage"
        if each["kind"] in {"Deployment", "NetworkPolicy"}:
            assert "'app.kubernetes.io/name': 'shop'" not in str(each["spec"])


@pytest.mark.parametrize("name", ["Staging", "1a", "a_b", "a" * 41, "a-"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    assert "fullnameOverride" in refusal(f"image: {{registry: r/s}}\nfullnameOverride: {name}\n")


def of_aliases(folder: Path, *aliases: str) -> subprocess.CompletedProcess[str]:
    """Render a chart that depends on this one once for each alias."""
    dependency = {"name": "shop", "version": "*", "repository": f"file://{CHART}"}
    dependencies = [{**dependency, "alias": alias} for alias in aliases]
    about = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": dependencies}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(about))
    production = yaml.safe_load((CHART / "ci" / "production-values.yaml").read_text())
    production["edge"]["globalRateLimit"] = {"enabled": True, "redis": {"address": "redis-limits.example:6379"}}
    (folder / "values.yaml").write_text(yaml.safe_dump(dict.fromkeys(aliases, production)))
    built = helm("dependency", "build", str(folder), "--skip-refresh")
    assert built.returncode == 0, built.stderr
    return helm("template", "platform", str(folder))


def selectors(node: Any) -> Iterator[Json]:
    """Yield the labels of every selector of pods of the same namespace."""
    if isinstance(node, list):
        for each in node:
            yield from selectors(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in {"selector", "podSelector", "labelSelector"} and isinstance(value, dict):
                if value and "namespaceSelector" not in node:
                    yield value.get("matchLabels", value)
            else:
                yield from selectors(value)


def test_two_aliases_in_one_release_share_no_object_and_no_pod(tmp_path: Path) -> None:
    done = of_aliases(tmp_path, "north", "south")
    assert done.returncode == 0, done.stderr
    every = [each for each in yaml.safe_load_all(done.stdout) if each]
    of_alias = {
        alias: [each for each in every if each["metadata"]["name"].split("-")[0] == alias]
        for alias in ("north", "south")
    }

    assert len(of_alias["north"]) == len(of_alias["south"]) == len(every) // 2
    assert {prefix for prefix in texts(every) if prefix.endswith("/")} >= {"default/north/", "default/south/"}
    pods = [
        each["spec"]["template"]["metadata"]["labels"] for each in of_alias["south"] if each["kind"] == "Deployment"
    ]
    for each in of_alias["north"]:
        for selector in selectors(each.get("spec", {})):
            for labels in pods:
                assert not selector.items() <= labels.items(), each["metadata"]["name"]


def test_an_alias_that_can_begin_no_name_is_refused(tmp_path: Path) -> None:
    assert "the alias North begins the names of all objects" in of_aliases(tmp_path, "North").stderr


TEXTS = ("123", "no", "null", "1.5", "1e3")
"""Names that Kubernetes allows and that YAML reads as a number or a boolean."""

NAMES = """
redis: {existingSecret: S, authority: {existingSecret: S, key: S}}
database: {authority: {existingSecret: S, key: S}}
serviceDefaults: {existingSecret: S, tlsSecret: S, migrations: {existingSecret: S}}
edge: {tlsSecret: S, publicTlsSecret: S, trustedHops: 1, service: {type: LoadBalancer, loadBalancerClass: S}}
image: {registry: r.example/s, pullSecrets: [S, {name: S}]}
ingress: {enabled: true, className: S, tlsSecret: S, hosts: [S]}
certManager: {enabled: true, createAuthority: false, issuer: {name: S, group: S}, publicIssuer: {name: S, group: S}}
observability: {otlpEndpoint: "http://c:4317", otlpAuthority: {existingSecret: S, key: S}}
pod: {priorityClassName: S, labels: {a: S}, annotations: {a: S}, serviceAccount: {create: false, name: S}}
nameOverride: S
"""


@pytest.mark.parametrize("text", TEXTS)
def test_a_name_that_looks_like_a_number_stays_a_text(text: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(re.sub(r"\bS\b", f'"{text}"', NAMES))
    done = helm("template", "shop", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stderr

    # Helm reads YAML 1.2, in which more looks like a number than in PyYAML's 1.1: nothing may stand without quotes.
    assert not re.findall(rf"[ \[]{re.escape(text)}(?=[,\]}}\n])", done.stdout)
