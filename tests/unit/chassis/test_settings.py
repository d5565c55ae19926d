from __future__ import annotations

import base64
import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from annotated_types import Le
from pydantic import ValidationError

from chassis.auth.access_tokens import TokenSettings
from chassis.auth.certificates import TlsSettings
from chassis.client.breaker import BreakerSettings
from chassis.client.settings import PeerSettings
from chassis.database.settings import DatabaseSettings
from chassis.database.url import DatabaseUrl
from chassis.events.relay import RelaySettings
from chassis.server.settings import ServerSettings
from chassis.settings import constants, load
from chassis.telemetry.settings import TelemetrySettings
from chassis.watch.settings import WatchSettings
from docs import settings_page
from tests.support.notes_svc.settings import KeySettings
from tests.support.service_settings import stack_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic_settings import BaseSettings

SECRET = "hunter2-of-the-database"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SERVICE_NAME", "notes_svc")  # as chassis.runtime.cli does


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be a user whom permissions hold for, also where root runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def mistakes_of(section: type[BaseSettings], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what load() complains of, line by line."""
    with pytest.raises(SystemExit) as stopped:
        load(section)
    assert stopped.value.code == 1
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()


def test_unset_settings_have_defaults() -> None:
    server = load(ServerSettings)

    assert (server.host, server.port, server.grpc_reflection) == ("0.0.0.0", 50051, False)
    assert (server.drain_s, server.stop_grace_s) == (3, 10)


def test_drain_and_stop_fit_into_30_s_at_their_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAIN_S", "15")
    monkeypatch.setenv("STOP_GRACE_S", "12")

    server = load(ServerSettings)

    assert server.drain_s + server.stop_grace_s < 30


def test_the_breaker_is_the_contracts_by_default() -> None:
    breaker = load(BreakerSettings)

    assert (breaker.fail_max, breaker.success_threshold, breaker.reset_timeout_s) == (5, 2, 60)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "50052")
    monkeypatch.setenv("GRPC_REFLECTION", "true")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://users:{SECRET}@localhost:5432/users")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "5")
    monkeypatch.setenv("BREAKER_RESET_TIMEOUT_S", "0.5")
    monkeypatch.setenv("UNKNOWN_TO_US", "1")

    server, database, breaker = load(ServerSettings), load(DatabaseSettings), load(BreakerSettings)

    assert (server.port, server.grpc_reflection) == (50052, True)
    parameters = {"user": "users", "password": SECRET, "host": "localhost", "port": "5432", "dbname": "users"}
    assert database.url.parameters == parameters
    assert (database.pool_size, breaker.reset_timeout_s) == (5, 0.5)


def test_the_interval_of_heartbeats_keeps_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WATCH_SIGN_OF_LIFE_S", "2")
    assert load(WatchSettings).heartbeat_s == 2

    monkeypatch.setenv("WATCH_SIGN_OF_LIFE_S", "0")
    assert mistakes_of(WatchSettings, capsys) == ["WATCH_SIGN_OF_LIFE_S: Input should be greater than 0"]


def test_a_variable_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert mistakes_of(DatabaseSettings, capsys) == ["DATABASE_URL: must be set"]


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        (DatabaseSettings, "DATABASE_URL", f"mysql://users:{SECRET}@localhost/users"),
        (DatabaseSettings, "DATABASE_URL", SECRET),
        (DatabaseSettings, "DATABASE_URL", f"postgresql://users:{SECRET}@localhost:99999/users"),
        (ServerSettings, "PORT", SECRET),
        (ServerSettings, "PORT", "0"),
        (ServerSettings, "PORT", "65536"),
        (ServerSettings, "DRAIN_S", "-1"),
        (ServerSettings, "DRAIN_S", "nan"),
        (ServerSettings, "MAX_CONNECTION_AGE_S", "inf"),
        (ServerSettings, "GRPC_REFLECTION", SECRET),
        (BreakerSettings, "BREAKER_FAIL_MAX", "0"),
        (BreakerSettings, "BREAKER_RESET_TIMEOUT_S", "0"),
        (TelemetrySettings, "LOG_LEVEL", SECRET),
        (TelemetrySettings, "OTEL_EXPORTER_OTLP_ENDPOINT", f"{SECRET}:4317"),
        (TelemetrySettings, "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{SECRET}:port"),
        (TelemetrySettings, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"grpc://{SECRET}:4317"),
        (TlsSettings, "TLS_ALLOWED_PEERS", f"edge {SECRET}"),
        (TlsSettings, "TLS_ALLOWED_PEERS", "edge,notes-svc"),
        (TlsSettings, "TLS_ALLOWED_PEERS", "Edge"),
        (TlsSettings, "TLS_ALLOWED_PEERS", "[edge]"),
        (TlsSettings, "TLS_ALLOWED_PEERS", '["edge"]'),
        (TlsSettings, "TLS_ALLOWED_PEERS", "edge,*"),
        (TlsSettings, "TLS_ALLOWED_PEERS", "spiffe://shop/edge"),
        (TelemetrySettings, "HOST", "*"),
        (TelemetrySettings, "HOST", f"http://{SECRET}"),
        (TelemetrySettings, "HOST", "a b"),
        (PeerSettings, "URL", ""),
        (BreakerSettings, "BREAKER_SUCCESS_THRESHOLD", SECRET),
    ],
)
def test_a_mistake_names_the_variable_and_never_its_value(
    section: type[BaseSettings],
    name: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)

    mistakes = mistakes_of(section, capsys)

    assert [line.partition(":")[0] for line in mistakes] == [name]
    assert SECRET not in mistakes[0]


TARGETS: Final = {
    "notes-host:50051": True,
    "notes_host:1": True,
    "127.0.0.1:65535": True,
    "[::1]:50051": True,
    "dns:notes-host:50051": True,
    "dns:///notes-host:50051": True,
    "dns:///[::1]:50051": True,
    "dns://10.0.0.10/notes-host.shop.svc.cluster.local.:50051": True,
    "ipv4:10.0.0.1:50051,10.0.0.2:50051": True,
    "ipv6:[::1]:50051,[::2]:50051": True,
    "unix:/run/notes.sock": True,
    "unix:///run/notes.sock": True,
    "unix-abstract:notes": True,
    "xds:///notes-host": True,
    "dns://notes-host:50051": False,
    "http://notes-host:50051": False,
    "https://notes-host:50051": False,
    "grpc://u:1": False,
    "notes-host": False,
    "dns:///notes-host": False,
    "notes-host:": False,
    "notes-host:0": False,
    "notes-host:65536": False,
    "notes-host:grpc": False,
    "notes-host:50051/": False,
    "ada:password@notes-host:50051": False,
    "a:1,b:2": False,
    "::1:50051": False,
    "ipv4:notes-host:50051": False,
    ":50051": False,
}


@pytest.mark.parametrize("target", TARGETS)
def test_the_url_of_a_peer_is_a_target_that_grpc_reaches(
    target: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("URL", target)

    if TARGETS[target]:
        assert load(PeerSettings).url == target
    else:
        expected = "URL: must be host:port or dns:///host:port"
        assert mistakes_of(PeerSettings, capsys) == [expected]


def test_the_variables_that_a_mistake_names_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "tls.crt").touch()
    monkeypatch.setenv("TLS_CERT_FILE", str(tmp_path / "tls.crt"))

    [mistake] = mistakes_of(TlsSettings, capsys)

    assert set(re.findall(r"[A-Z]+(?:_[A-Z]+)+", mistake)) == set(settings_page.variables(TlsSettings))


SECTIONS: Final = settings_page.sections().values()
CONSTANTS: Final = {name: section for section in SECTIONS for name in constants(section)}
REQUIRED: Final = {
    "DATABASE_URL": "postgresql://localhost/users",
    "KEYS_SECRET": base64.urlsafe_b64encode(bytes(32)).decode(),
    "REDIS_URL": "redis://localhost/0",
    "SERVICE_NAME": "notes_svc",
    "USER_SERVICE_URL": "localhost:50051",
}


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("spelt", [str.upper, str.lower])
def test_a_variable_that_would_set_a_constant_is_refused_in_one_line(
    name: str, spelt: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for required, value in REQUIRED.items():
        monkeypatch.setenv(required, value)
    value = constants(CONSTANTS[name])[name]
    monkeypatch.setenv(spelt(name), str(value))

    mistakes = mistakes_of(CONSTANTS[name], capsys)

    assert mistakes == [f"{name}: this is no setting, the value is always {value}. Remove the variable"]


def test_the_refusal_does_not_show_the_value_that_was_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN_ISSUER", SECRET)

    assert SECRET not in "".join(mistakes_of(TokenSettings, capsys))


def test_a_file_that_would_set_a_constant_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "RELAY_BATCH").write_text("500")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    assert mistakes_of(RelaySettings, capsys) == [
        "RELAY_BATCH: this is no setting, the value is always 500. Remove the variable"
    ]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_loaded_while_no_variable_would_set_a_constant(
    section: type[BaseSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for required, value in REQUIRED.items():
        monkeypatch.setenv(required, value)

    assert isinstance(load(section), section)


def test_the_smallest_pool_has_a_connection_for_calls_that_are_not_batched() -> None:
    assert DatabaseSettings(url=DatabaseUrl.parse("postgresql://localhost/users"), pool_size=4).shared_connections == 1


def test_every_mistake_has_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DATABASE_URL", f"mysql://users:{SECRET}@localhost/users")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "many")
    monkeypatch.setenv("DATABASE_LOCK_TIMEOUT_S", "0")

    mistakes = mistakes_of(DatabaseSettings, capsys)

    names = sorted(line.partition(":")[0] for line in mistakes)
    assert names == ["DATABASE_LOCK_TIMEOUT_S", "DATABASE_POOL_SIZE", "DATABASE_URL"]
    assert SECRET not in "".join(mistakes)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (ServerSettings, "port"),
        (DatabaseSettings, "pool_size"),
        (BreakerSettings, "fail_max"),
        (TelemetrySettings, "service_name"),
        (KeySettings, "public_key"),
    ],
)
def test_settings_cannot_be_changed(section: type[BaseSettings], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/users")
    monkeypatch.setenv("NOTES_PUBLIC_KEY", "x")
    settings = load(section)

    with pytest.raises(ValidationError):
        setattr(settings, name, 1)


def test_settings_missing_in_the_environment_are_read_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "DATABASE_URL").write_text("postgresql://notes_svc:from-a-file@db/users\n")
    (tmp_path / "DATABASE_POOL_SIZE").write_text("3")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("DATABASE_POOL_SIZE", "4")

    database = load(DatabaseSettings)

    assert database.url.parameters["password"] == "from-a-file"
    assert database.pool_size == 4


def test_a_mistake_in_a_file_is_named_without_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "DATABASE_URL").write_text(f"mysql://{SECRET}@db/users")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    mistakes = mistakes_of(DatabaseSettings, capsys)

    assert [mistake.partition(":")[0] for mistake in mistakes] == ["DATABASE_URL"]
    assert SECRET not in "".join(mistakes)


VARIABLES: Final = {name: section for section in SECTIONS for name in settings_page.variables(section)}
NUMBERS: Final = [
    name for name in VARIABLES if settings_page.variables(VARIABLES[name])[name].annotation in {int, float}
]


def value_of(name: str) -> str:
    """Return a value that the variable takes: its default if it has one."""
    field = settings_page.variables(VARIABLES[name])[name]
    default = "" if field.is_required() or field.default is None else settings_page.shown(field.default)
    return REQUIRED.get(name) or default.removesuffix(settings_page.NONE)


def loaded(section: type[BaseSettings]) -> dict[str, object]:
    """Return what the section reads; secrets as texts."""
    return {name: str(value) for name, value in load(section)}


@pytest.fixture
def required(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("blank", ["", " ", "\n"])
@pytest.mark.usefixtures("required")
def test_a_blank_value_counts_as_none(
    name: str, blank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(name, raising=False)
    if name not in REQUIRED:
        unset = loaded(VARIABLES[name])

    monkeypatch.setenv(name, blank)

    if name in REQUIRED:
        assert mistakes_of(VARIABLES[name], capsys) == [f"{name}: must be set"]
    else:
        assert loaded(VARIABLES[name]) == unset


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.usefixtures("required")
def test_a_newline_at_the_end_changes_no_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = value_of(name)
    monkeypatch.setenv(name, value)
    bare = loaded(VARIABLES[name])

    monkeypatch.setenv(name, f" {value}\r\n")

    assert loaded(VARIABLES[name]) == bare


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.usefixtures("required")
def test_quotes_that_an_env_file_keeps_are_refused(
    name: str, quote: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, f"{quote}{value_of(name) or SECRET}{quote}")

    assert mistakes_of(VARIABLES[name], capsys) == [f"{name}: must not be in quotes"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("absurd", ["1e300", f"{10**30}", "9" * 5000, "inf", "-inf", "nan"])
@pytest.mark.usefixtures("required")
def test_a_number_that_makes_no_sense_is_one_line(
    name: str, absurd: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, absurd)

    mistakes = mistakes_of(VARIABLES[name], capsys)

    assert [mistake.partition(":")[0] for mistake in mistakes] == [name]
    assert absurd not in mistakes[0]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("small", ["-1", "0", "0.0001"])
@pytest.mark.usefixtures("required")
def test_a_small_number_is_taken_or_one_line(
    name: str, small: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, small)

    try:
        taken = load(VARIABLES[name])
    except SystemExit:
        assert [mistake.partition(":")[0] for mistake in capsys.readouterr().err.splitlines()] == [name]
    else:
        assert float(small) in [value for _, value in taken if isinstance(value, (int, float))]
        assert float(small) >= 0


def test_every_number_of_the_stack_is_bounded() -> None:
    numbers = {name: field for name, field in stack_variables().items() if "int" in str(field.annotation)}

    unbounded = [name for name, field in numbers.items() if not any(isinstance(each, Le) for each in field.metadata)]

    assert len(numbers) > 3
    assert unbounded == []


@pytest.mark.parametrize("name", [name for name in VARIABLES if not name.startswith("OTEL_")])
def test_a_misspelt_variable_is_named_with_the_one_that_is_meant(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for required, value in REQUIRED.items():
        if required != name:
            monkeypatch.setenv(required, value)
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{name}S", SECRET)

    try:
        load(VARIABLES[name])
    except SystemExit:
        assert name in REQUIRED

    assert f"{name}S: there is no such setting, so it is ignored. Did you mean {name}?" in capsys.readouterr().err


@pytest.mark.usefixtures("required")
def test_no_variable_of_one_process_is_taken_for_a_misspelling_by_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The chart and compose give one environment to several processes.
    for section in SECTIONS:
        others = {name for name in (*VARIABLES, *stack_variables()) if name not in settings_page.variables(section)}
        with monkeypatch.context() as given:
            for name in (*others, "HOSTNAME", "HOME", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_SERVICE_NAME"):
                given.setenv(name, value_of(name) if name in VARIABLES else "x")
            for name in set(settings_page.variables(section)) - REQUIRED.keys():
                given.delenv(name, raising=False)

            load(section)

        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda file: file.mkdir(), "must be set: {file} is a folder and no file"),
        (lambda file: file.write_text(" \n"), "must be set: {file} is empty, or leads out of the folder"),
        (lambda file: file.symlink_to("/etc/hostname"), "must be set: {file} is empty, or leads out of the folder"),
        (lambda file: file.write_bytes(b"\xff\xfe"), "{file} is not a text in UTF-8"),
    ],
)
def test_a_secret_that_is_no_readable_file_is_one_line(
    make: Callable[[Path], object],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path / "DATABASE_URL")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    assert mistakes_of(DatabaseSettings, capsys) == [f"DATABASE_URL: {why.format(file=tmp_path / 'DATABASE_URL')}"]


def test_a_secret_that_another_user_owns_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        Path(folder).chmod(0o755)
        file = Path(folder, "DATABASE_URL")
        file.write_text(SECRET)
        file.chmod(0)
        monkeypatch.setenv("SECRETS_DIR", folder)
        with unprivileged():
            mistakes = mistakes_of(DatabaseSettings, capsys)

    assert re.fullmatch(rf"DATABASE_URL: {file} cannot be read by uid \d+: Permission denied", "\n".join(mistakes))


@pytest.mark.parametrize(("folder", "why"), [("nowhere", "No such file or directory"), ("file", "Not a directory")])
def test_a_folder_of_secrets_that_is_none_is_one_line(
    folder: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / folder))

    expected = f"SECRETS_DIR: the folder {tmp_path / folder} cannot be read: {why}"
    assert mistakes_of(DatabaseSettings, capsys) == [expected]


@pytest.mark.parametrize(("given", "level"), [("debug", "DEBUG"), ("Info", "INFO"), ("WARNING", "WARNING")])
def test_the_log_level_may_be_in_small_letters(given: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", given)

    assert load(TelemetrySettings).log_level == level
