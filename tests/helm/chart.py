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
    from collections.abc import Iterable, Iterator

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


def named(shape: str, *arguments: str) -> list[Json]:
    """Return the manifests of the release `second` for values of this shape, with further arguments of helm."""
    values = str(CHART / "ci" / f"{shape}-values.yaml")
    done = helm("template", "second", str(CHART), "--values", values, *arguments)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def notes(shape: str) -> str:
    """Return the notes that helm prints after an installation with values of this shape."""
    values = str(CHART / "ci" / f"{shape}-values.yaml")
    done = helm("install", "shop", str(CHART), "--values", values, "--dry-run=client")
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice: of these Helm takes the last without a word, and others refuse the file."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Json:  # noqa: FBT001, FBT002  PyYAML's
        """Return the mapping."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: {twice}"
        return super().construct_mapping(node, deep=deep)


def objects(text: str) -> list[Json]:
    """Return the objects of a manifest.

    Raises:
        AssertionError: a key of a mapping, a variable, a volume or a mount is there twice.
    """
    found = [each for each in yaml.load_all(text, _UniqueKeys) if each]
    for each in found:
        for pod in _specs(each):
            for container in (*pod["containers"], *pod.get("initContainers", ())):
                _require_once(variable["name"] for variable in container.get("env", ()))
                _require_once(mount["mountPath"] for mount in container.get("volumeMounts", ()))
            _require_once(volume["name"] for volume in pod.get("volumes", ()))
            _require_once(container["name"] for container in (*pod["containers"], *pod.get("initContainers", ())))
    return found


def _specs(manifest: Json) -> Iterator[Json]:
    if manifest["kind"] in {"Deployment", "Job"}:
        yield manifest["spec"]["template"]["spec"]
    elif manifest["kind"] == "Pod":
        yield manifest["spec"]


def _require_once(names: Iterable[str]) -> None:
    listed = list(names)
    assert len(listed) == len(set(listed)), listed


def manifests(shape: str, kind: str = "") -> list[Json]:
    """Return the manifests for values of this shape, of one kind if it is named."""
    every = objects(rendered(shape))
    return [each for each in every if kind in {"", each["kind"]}]


def pods(shape: str) -> Iterator[tuple[str, Json]]:
    """Yield the spec of every pod, with the name of what makes it."""
    for each in manifests(shape):
        for spec in _specs(each):
            yield each["metadata"]["name"], spec


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
