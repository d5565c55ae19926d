"""Where the order service finds the user service."""

from __future__ import annotations

from tests.helm.chart import named


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
