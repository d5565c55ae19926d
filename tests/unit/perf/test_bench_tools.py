"""The programs that the bench installs, and the peers that need them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.perf.tools import PEERS, Installation

if TYPE_CHECKING:
    from pathlib import Path

_CODE: Final = {
    "express_same": (".js", "//"),
    "fastapi_same": (".py", "#"),
    "grpc_go/same": (".go", "//"),
}
_MAX_LINES: Final = 300


@pytest.mark.parametrize("peer", _CODE)
def test_a_peer_that_does_the_same_stays_small_enough_to_be_read(peer: str) -> None:
    suffix, comment = _CODE[peer]
    files = [file for file in (PEERS / peer).iterdir() if file.suffix == suffix]
    lines = [line.strip() for file in files for line in file.read_text().splitlines()]

    code = [line for line in lines if line and not line.startswith(comment)]

    assert 0 < len(code) <= _MAX_LINES


@pytest.mark.parametrize("peer", ["express", "express_same"])
def test_a_lock_file_pins_versions_and_names_no_registry(peer: str) -> None:
    packages = json.loads((PEERS / peer / "package-lock.json").read_text())["packages"]

    for name, package in packages.items():
        assert "resolved" not in package
        assert not name or package["integrity"]


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    lock, ready = tmp_path / "lock", tmp_path / "made" / "ready"
    lock.write_text("1.0")
    with Installation(ready, [lock]) as first:
        pass
    os.utime(lock, (2e9, 2e9))  # a new checkout of the same file

    assert first.is_needed
    assert not Installation(ready, [lock]).is_needed
    lock.write_text("1.1")
    assert Installation(ready, [lock]).is_needed
    assert Installation(ready, [lock], also="another Python").is_needed


def test_an_installation_that_fails_is_repeated(tmp_path: Path) -> None:
    lock, ready = tmp_path / "lock", tmp_path / "ready"
    lock.write_text("1.0")

    with pytest.raises(OSError, match="no network"), Installation(ready, [lock]):
        raise OSError("no network")

    assert Installation(ready, [lock]).is_needed
