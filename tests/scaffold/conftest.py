"""The clone of each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scaffold.clone import Clone

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")
