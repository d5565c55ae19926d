"""What the edge says about options that make no sense: one line that names the option and what it must be."""

from __future__ import annotations

import sys
from typing import Final

import pytest

from envoy import __main__ as envoy_main
from envoy.__main__ import _EVERYWHERE, main

NONSENSE: Final = {
    "address": ("localhost", "1.2.3", ""),
    "rate_limit": ("0", "-1", "many", "1.5", ""),
    "public_write_limit": ("0", "1e3", ""),
    "rate_limiter": ("rate-limiter", "http://:8081", "a:99999", ""),
    "trusted_hops": ("-1", "11", "one", ""),
    "cors_origins": ("*", "shop.example", "https://shop.example/", "https://a.example;https://b.example"),
    "hsts": ("true", "1", ""),
    "metrics_port": ("65536", "-1", "http"),
    "traces_to": ("collector", "grpc://collector:4317", "collector:port", ""),
    "trace_sampling": ("101", "-1", "nan", "half", ""),
}
"""Values of each option that is no path."""


def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Return the last line that the command prints before it ends with an error."""
    monkeypatch.setattr(sys, "argv", ["python -m envoy", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_every_option_has_a_case() -> None:
    assert NONSENSE.keys() | {"traces_authority"} == _EVERYWHERE.keys()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NONSENSE.items() for value in values])
def test_nonsense_is_refused_in_one_line(
    name: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    option = f"--{name.replace('_', '-')}"

    line = told(capsys, monkeypatch, "render", "--environment=compose", f"{option}={value}")

    assert line.startswith(f"python -m envoy render: error: argument {option}: must be ")


@pytest.mark.parametrize("value", ["0", "257", "two"])
def test_the_number_of_threads_is_checked(
    value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = told(capsys, monkeypatch, "run", "--environment=compose", f"--concurrency={value}")

    assert line.endswith("argument --concurrency: must be a whole number from 1 to 256")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cors_origins", "https://a.example, https://b.example,", ("https://a.example", "https://b.example")),
        ("cors_origins", "", ()),
        ("address", "[::]", "::"),
        ("trusted_hops", " 2\n", 2),
        ("hsts", "on", True),
        ("trace_sampling", "0.5", 0.5),
    ],
)
def test_a_value_is_read_as_it_is_meant(name: str, text: str, value: object) -> None:
    assert _EVERYWHERE[name](text) == value


def test_without_a_folder_to_write_the_edge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["python -m envoy", "run", "--environment=compose"])

    def nowhere() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", nowhere)

    with pytest.raises(SystemExit, match="mount a folder there"):
        envoy_main.main()


def test_a_variable_gives_an_option_and_the_option_overrides_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_RATE_LIMITER", "limiter-by-variable:8081")
    monkeypatch.setenv("EDGE_TRACES_TO", "collector-by-variable:4317")
    monkeypatch.setenv("EDGE_RATE_LIMIT", "")
    monkeypatch.setattr(
        sys, "argv", ["python -m envoy", "render", "--environment=compose", "--traces-to=collector-by-option:4317"]
    )

    with pytest.raises(SystemExit) as ended:
        main()

    rendered = capsys.readouterr().out
    assert ended.value.code in {None, 0}
    assert "limiter-by-variable" in rendered
    assert "collector-by-option" in rendered
    assert "collector-by-variable" not in rendered


@pytest.mark.parametrize("name", sorted(_EVERYWHERE.keys() - {"traces_authority"}))
def test_a_variable_that_makes_no_sense_is_refused_like_its_option(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"EDGE_{name.upper()}", "nonsense nonsense")

    line = told(capsys, monkeypatch, "render", "--environment=compose")

    assert f"argument --{name.replace('_', '-')}: must be " in line
