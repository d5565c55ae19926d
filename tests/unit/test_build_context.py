"""What the Dockerfiles copy is in the build context, which leaves out what `.dockerignore` does not let in."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import pytest

from chassis.service import services
from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

DOCKERFILES = sorted((REPOSITORY / "docker").glob("*Dockerfile"))
LET_IN = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]


def copied(dockerfile: str) -> list[str]:
    """Return the paths that a Dockerfile copies from the build context."""
    lines = re.findall(r"^COPY (?!--from)((?:.*\\\n)*.*)$", dockerfile, flags=re.MULTILINE)
    return [path for line in lines for path in line.replace("\\\n", " ").split()[:-1] if path != "."]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_path_that_is_copied_is_in_the_build_context(path: Path) -> None:
    paths = [each.replace("${SERVICE}", service.name) for each in copied(path.read_text()) for service in services()]

    assert paths
    for each in paths:
        folders = [each.rsplit("/", count)[0] for count in range(each.count("/") + 1)]
        assert any(fnmatch(folder, pattern) for folder in folders for pattern in LET_IN), f"{each}: see .dockerignore"
        assert (REPOSITORY / each).exists() or each.startswith("node_modules/"), each
