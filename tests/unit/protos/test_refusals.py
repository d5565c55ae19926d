"""What ends the generation ends it with a sentence: who has changed the contract needs no traceback."""

from __future__ import annotations

import importlib
import io
import pkgutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from chassis.service import ROOT, InvalidDeclaration
from protos import codegen
from protos.codegen import openapi
from protos.codegen.refusals import Refusal, ending_with_a_sentence
from tests.unit.protos.test_openapi import a_contract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def declared() -> Iterator[type[BaseException]]:
    """Yield the exceptions that the modules of the generation declare."""
    modules = [f"protos.codegen.{each.name}" for each in pkgutil.iter_modules(codegen.__path__)]
    for name in (*modules, "docs.settings_page"):
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == name:
                yield value


def test_every_exception_of_the_generation_is_a_refusal() -> None:
    found = list(declared())

    assert len(found) > 8
    assert [each for each in found if not issubclass(each, Refusal)] == []


@pytest.mark.parametrize("kind", [*declared(), InvalidDeclaration], ids=lambda kind: kind.__name__)
def test_a_refusal_ends_the_process_with_its_message(kind: type[Exception]) -> None:
    with pytest.raises(SystemExit, match=r"^what to do$"), ending_with_a_sentence():
        raise kind("what to do")


def test_a_contract_that_no_comparison_can_read_ends_the_command_with_a_sentence(tmp_path: Path) -> None:
    contract = a_contract()
    contract.file[-1].message_type[0].options.deprecated = True
    images = [tmp_path / "before.binpb", tmp_path / "after.binpb"]
    for image in images:
        image.write_bytes(contract.SerializeToString())

    command = [sys.executable, "-m", "protos.codegen.removals", *images]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stderr.startswith("shop.toy.v1.GetToyRequest: ")


def test_a_field_without_an_example_ends_the_command_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = a_contract(field="colour").SerializeToString()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(contract)))

    with pytest.raises(SystemExit, match=r"^name an example of shop\.toy\.v1\.GetToyRequest\.colour in shop/toy/v1/"):
        openapi.main()
