"""Passwords, tokens and keys stay out of the text of what holds them: that text ends up in logs and in tracebacks."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from typing import TYPE_CHECKING

import pytest
from pydantic_settings import BaseSettings

from tests.support.guards import packages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

SECRET = re.compile(r"password|secret|private_key|chain_key|authorization|(access|refresh|bearer)_token$")
# Named for what they are in a class that is about a password.
OF_A_PASSWORD = {("PasswordChange", "current"), ("PasswordChange", "new")}


def classes() -> Iterator[type]:
    for package in packages():
        for module in modules_of(importlib.import_module(package)):
            yield from (
                each for _, each in inspect.getmembers(module, inspect.isclass) if each.__module__ == module.__name__
            )


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not re.search(r"migrations\.|__main__$", each.name):  # these run something when they are loaded
            yield importlib.import_module(each.name)


def secrets() -> list[tuple[type, str]]:
    return [
        (each, field.name)
        for each in classes()
        if dataclasses.is_dataclass(each)
        for field in dataclasses.fields(each)
        if field.type in {"str", "bytes"}
        and (SECRET.search(field.name) or (each.__name__, field.name) in OF_A_PASSWORD)
    ]


def settings() -> list[type[BaseSettings]]:
    return [each for each in classes() if issubclass(each, BaseSettings)]


@pytest.mark.parametrize(
    ("holder", "name"), [pytest.param(*each, id=f"{each[0].__name__}.{each[1]}") for each in secrets()]
)
def test_a_secret_is_not_in_the_text_of_its_holder(holder: type, name: str) -> None:
    values = {field.name: f"the {field.name}" for field in dataclasses.fields(holder)}

    text = repr(holder(**values))

    assert f"the {name}" not in text


def test_the_secrets_are_found() -> None:
    found = {f"{holder.__name__}.{name}" for holder, name in secrets()}

    assert {"NewUser.password", "Attempt.password_hash", "LoggedIn.refresh_token", "Session.chain_key"} <= found
    assert {f"{holder}.{name}" for holder, name in OF_A_PASSWORD} <= found


@pytest.mark.parametrize("section", settings(), ids=lambda each: each.__name__)
def test_settings_stay_what_they_were_at_the_start(section: type[BaseSettings]) -> None:
    assert section.model_config.get("frozen") is True
