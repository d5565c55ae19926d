"""Names can be set, and two releases in one namespace then share nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from chassis.service import services
from envoy.environments import kubernetes
from tests.helm.chart import CHART, SHAPES, Json, helm, manifests, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFERENCES = {"secretName", "serviceAccountName"}
"""Keys by which one object names another; `name` below the keys of `NAMING` does too."""

NAMING = {"issuerRef", "scaleTargetRef", "service", "backendRefs"}


def named(shape: str, *arguments: str) -> list[Json]:
    """Return the manifests for values of this shape, with further arguments of helm."""
    values = str(CHART / "ci" / f"{shape}-values.yaml")
    done = helm("template", "second", str(CHART), "--values", values, *arguments)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


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


def test_the_order_service_is_configured_with_the_user_services_name() -> None:
    [orders] = [
        each
        for each in named("default", "--set", "fullnameOverride=second")
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "second-order-svc")
    ]

    variables = {each["name"]: each["value"] for each in orders["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert variables["USER_SERVICE_URL"] == "dns:///second-user-svc-headless:50051"


def test_an_operator_may_say_where_a_service_is() -> None:
    [orders] = [
        each
        for each in named("default", "--set", "services.order-svc.env.USER_SERVICE_URL=a:1")
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "order-svc")
    ]

    urls = [
        each["value"]
        for each in orders["spec"]["template"]["spec"]["containers"][0]["env"]
        if each["name"] == "USER_SERVICE_URL"
    ]

    assert urls == ["a:1"]


def test_the_label_of_a_name_selects_its_pods() -> None:
    for each in named("production", "--set", "nameOverride=stage"):
        assert each["metadata"]["labels"]["app.kubernetes.io/name"] == "stage"
        if each["kind"] in {"Deployment", "NetworkPolicy"}:
            assert "'app.kubernetes.io/name': 'shop'" not in str(each["spec"])


@pytest.mark.parametrize("name", ["Staging", "1a", "a_b", "a" * 41, "a-"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    assert "fullnameOverride" in refusal(f"image: {{registry: r/s}}\nfullnameOverride: {name}\n")


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
