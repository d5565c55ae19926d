"""The chart, rendered by a real helm, and what tests ask of the result."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART: Final = REPOSITORY / "helm" / "shop"
SHAPES: Final = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
_HELM: Final = shutil.which("helm", path=f"{REPOSITORY / '.tools'}{os.pathsep}{os.environ.get('PATH', os.defpath)}")

Json = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm, whatever its exit code."""
    if _HELM is None:
        pytest.skip("helm is not there: `make helm` builds it where Go is")
    return subprocess.run([_HELM, *arguments], capture_output=True, text=True, timeout=60, check=False)


@functools.cache
def rendered(shape: str) -> str:
    """Return the manifests for values of this shape."""
    done = helm("template", "shop", str(CHART), "--values", str(CHART / "ci" / f"{shape}-values.yaml"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def notes(shape: str) -> str:
    """Return the notes that helm prints after an installation with values of this shape."""
    values = str(CHART / "ci" / f"{shape}-values.yaml")
    done = helm("install", "shop", str(CHART), "--values", values, "--dry-run=client")
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


def manifests(shape: str, kind: str = "") -> list[Json]:
    """Return the manifests for values of this shape, of one kind if it is named."""
    every = [each for each in yaml.safe_load_all(rendered(shape)) if each]
    return [each for each in every if kind in {"", each["kind"]}]


def pods(shape: str) -> Iterator[tuple[str, Json]]:
    """Yield the spec of every pod, with the name of what makes it."""
    for each in manifests(shape):
        if each["kind"] in {"Deployment", "Job"}:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]
        elif each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]


@contextlib.contextmanager
def values_file(values: str) -> Iterator[Path]:
    """A file with the values, which are YAML."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.yaml"
        file.write_text(values)
        yield file


def refusal(values: str) -> str:
    """Return why helm does not render the values, which are YAML.

    Raises:
        AssertionError: it does.
    """
    with values_file(values) as file:
        done = helm("template", "shop", str(CHART), "--values", str(file))
    assert done.returncode != 0, "it was rendered"
    return done.stderr
