"""Where the order service finds the user service."""

from __future__ import annotations

import yaml

from tests.helm.chart import CHART, Json, helm


def named(shape: str, *arguments: str) -> list[Json]:
    """Return the manifests for values of this shape, with further arguments of helm."""
    values = str(CHART / "ci" / f"{shape}-values.yaml")
    done = helm("template", "second", str(CHART), "--values", values, *arguments)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


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
