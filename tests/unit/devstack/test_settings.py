from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from devstack.errors import StackError
from devstack.services import OWN_POLLER
from devstack.settings import REPOSITORY, Settings

_VARIABLES = (
    "SHOP_EDGE_PORT",
    "SHOP_HOME",
    "SHOP_REPLICAS",
    "SHOP_DRAIN_S",
    "DATABASE_URL_USERS",
    "DATABASE_URL_ORDERS",
    "LOG_LEVEL",
)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_without_variables_the_documented_defaults_hold() -> None:
    settings = Settings.from_environment()

    assert (settings.edge_port, settings.home, settings.replicas) == (8080, REPOSITORY / ".devstack", 2)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_EDGE_PORT", "")

    assert Settings.from_environment().edge_port == 8080


def test_variables_of_other_programs_are_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("DRAIN_S", "14")

    settings = Settings.from_environment()

    assert settings.home == REPOSITORY / ".devstack"
    assert settings.drain_s == 3


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SHOP_EDGE_PORT", "70000"),
        ("SHOP_EDGE_PORT", "http"),
        ("SHOP_REPLICAS", "0"),
        ("SHOP_REPLICAS", "9"),
        ("SHOP_DRAIN_S", "-1"),
        ("DATABASE_URL_USERS", "mysql://shop:hunter2@db/users"),
        ("LOG_LEVEL", "LOUD"),
        ("SHOP_RATE_LIMIT", "0"),
        ("SHOP_CORS_ORIGINS", "https://*.shop"),
    ],
)
def test_a_senseless_variable_is_named_in_one_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(StackError) as caught:
        Settings.from_environment()

    message = str(caught.value)
    assert message.startswith(f"{variable}: ")
    assert "\n" not in message
    assert value not in message


def test_settings_cannot_be_changed() -> None:
    settings = Settings(edge_port=9000)

    with pytest.raises(ValidationError):
        settings.edge_port = 9001


def test_a_database_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_ORDERS", "postgresql://shop:hunter2@db/orders")

    assert "hunter2" not in repr(Settings.from_environment())


@pytest.mark.parametrize(
    ("settings", "port"),
    [
        (Settings(), 8443),
        (Settings(edge_port=9000), 0),
        (Settings(edge_tls_port=9443), 9443),
        (Settings(edge_port=9000, edge_tls_port=9443), 9443),
    ],
)
def test_a_second_stack_needs_no_second_tls_port(settings: Settings, port: int) -> None:
    assert settings.tls_port == port


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_CORS_ORIGINS", "https://shop.example,http://localhost:4000")

    assert Settings.from_environment().cors_origins == ("https://shop.example", "http://localhost:4000")


@pytest.mark.parametrize(("experiments", "unknown"), [(OWN_POLLER, 0), (f"{OWN_POLLER},-nothing", 1)])
def test_grpcio_recognises_the_configured_experiments(experiments: str, unknown: int) -> None:
    # It will mean nothing one day (docs/adr/0023).
    command = (sys.executable, "-c", "import grpc; grpc.insecure_channel('ipv4:127.0.0.1:1').close()")
    told = subprocess.run(command, env={"GRPC_EXPERIMENTS": experiments}, capture_output=True, text=True, check=True)

    assert told.stderr.count("Unknown experiment") == unknown
