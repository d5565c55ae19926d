from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from devstack.errors import StackError
from devstack.home import Home
from devstack.passwords import PasswordFile

if TYPE_CHECKING:
    from pathlib import Path


def test_a_home_in_use_is_refused_with_the_id_of_its_process(tmp_path: Path) -> None:
    with (
        Home(tmp_path / "home").claimed(),
        pytest.raises(StackError, match=f"pid {os.getpid()}"),
        Home(tmp_path / "home").claimed(),
    ):
        pytest.fail("two stacks share a home")


def test_a_home_can_be_used_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    with home.claimed():
        (home.logs / "kept.log").touch()
    with home.claimed():
        assert (home.logs / "kept.log").exists()


def test_a_folder_with_other_files_is_neither_used_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    home = Home(tmp_path)

    with pytest.raises(StackError, match="not a stack's"), home.claimed():
        pytest.fail("adopted somebody's folder")
    with pytest.raises(StackError, match="not a stack's"):
        home.remove()

    assert (tmp_path / "thesis.txt").exists()


def test_a_home_in_use_is_not_removed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    with home.claimed(), pytest.raises(StackError, match="in use"):
        home.remove()

    assert home.path.exists()


def test_removing_a_home_says_whether_there_was_one(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.claimed():
        pass

    assert home.remove()
    assert not home.path.exists()
    assert not home.remove()


def test_a_password_is_random_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "pgpass"

    first = PasswordFile(path).password_of("user_svc")

    assert len(first) == 48
    assert PasswordFile(path).password_of("example_svc") != first
    assert PasswordFile(path).password_of("user_svc") == first


def test_only_the_owner_can_read_the_passwords(tmp_path: Path) -> None:
    path = tmp_path / "pgpass"

    PasswordFile(path).password_of("user_svc")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
