from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chassis.service import InvalidDeclaration, callers_of, read, services

if TYPE_CHECKING:
    from pathlib import Path

_EXAMPLE = 'collection = "examples"\nserves = ["shop.example.v1.ExampleService"]\n'


def declare(root: Path, name: str, text: str) -> Path:
    (root / name).mkdir()
    file = root / name / "service.toml"
    file.write_text(text)
    return file


def test_a_service_is_what_its_file_says(tmp_path: Path) -> None:
    service = read(
        declare(tmp_path, "second_example_svc", 'collection = "second_examples"\nserves = ["shop.second_example.v1.A"]')
    )

    assert (service.name, service.host, service.database) == (
        "second_example_svc",
        "second-example-svc",
        "second_examples",
    )
    assert (service.url_variable, service.health_path) == ("SECOND_EXAMPLE_SERVICE_URL", "/health/second-examples")
    assert not service.has_worker
    assert {service: 1}[service] == 1


def test_services_start_after_those_that_they_call(tmp_path: Path) -> None:
    for name, calls in {"a": ["c_svc"], "b": [], "c": ["d_svc"], "d": []}.items():
        declare(tmp_path, f"{name}_svc", f'collection = "{name}s"\nserves = ["shop.{name}.v1.S"]\ncalls = {calls}')

    found = services(tmp_path)

    assert [service.name for service in found] == ["b_svc", "d_svc", "c_svc", "a_svc"]
    assert callers_of(found[1], found) == ("edge", "c_svc")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("example", _EXAMPLE, "must be in lower case, end with _svc"),
        ("Stock_svc", _EXAMPLE, "must be in lower case, end with _svc"),
        (f"{'s' * 40}_svc", _EXAMPLE, "at most 40 characters"),
        ("example_svc", "collection = ", "Invalid value"),
        ("example_svc", f"{_EXAMPLE}port = 3", "there is no key port; the keys are calls, collection,"),
        ("example_svc", 'serves = ["shop.example.v1.ExampleService"]', "collection must be a word"),
        ("example_svc", 'collection = "Examples"\nserves = ["a"]', "collection must be a word"),
        ("example_svc", 'collection = "examples"', "serves must name a gRPC service"),
        ("example_svc", 'collection = "examples"\nserves = "a"', "serves must be a list of names"),
        (
            "example_svc",
            'collection = "examples"\nserves = ["a", "a"]',
            "serves must be a list of names, each of them once",
        ),
        ("example_svc", f"{_EXAMPLE}calls = [1]", "calls must be a list of names"),
        ("example_svc", f'{_EXAMPLE}publishes = "Example"', "publishes must be a word"),
        ("example_svc", f'{_EXAMPLE}key = "int"', "key must be uuid or text"),
        ("example_svc", f'{_EXAMPLE}[modules]\nrpc = "a"', "modules must be a table of lists"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_file_and_what_is_wrong(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    file = declare(tmp_path, name, text)

    with pytest.raises(InvalidDeclaration) as refused:
        read(file)

    assert str(refused.value).startswith(f"{file}: ")
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ('collection = "examples"\nserves = ["shop.b.v1.B"]', "collection: examples is a_svc's already"),
        (
            'collection = "bs"\nserves = ["shop.example.v1.ExampleService"]',
            "serves: shop.example.v1.ExampleService is a_svc's",
        ),
        ('collection = "bs"\nserves = ["s"]\npublishes = "example"', "publishes: example is a_svc's already"),
        ('collection = "bs"\nserves = ["s"]\ncalls = ["c_svc"]', "calls: there is no service c_svc"),
        ('collection = "bs"\nserves = ["s"]\nreads = ["cat"]', "reads: no service publishes cat"),
        ('collection = "bs"\nserves = ["s"]\npublishes = "b"\nreads = ["b"]', "reads: its own events are b"),
        ('collection = "bs"\nserves = ["s"]\ncalls = ["b_svc"]', "b_svc calls b_svc"),
    ],
)
def test_declarations_that_do_not_fit_each_other_are_refused(tmp_path: Path, other: str, complaint: str) -> None:
    declare(tmp_path, "a_svc", f'{_EXAMPLE}publishes = "example"')
    declare(tmp_path, "b_svc", other)

    with pytest.raises(InvalidDeclaration, match=complaint):
        services(tmp_path)


def test_a_folder_without_services_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDeclaration, match=r"has a service\.toml"):
        services(tmp_path)


def test_a_missing_declaration_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDeclaration, match=r"example_svc/service\.toml is missing"):
        read(tmp_path / "example_svc" / "service.toml")
