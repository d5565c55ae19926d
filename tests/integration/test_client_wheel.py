"""The client wheel, installed into an environment that has nothing but its declared dependencies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = ("chassis", "generated", "LICENSE", "README.md", "pyproject.toml", "setup.py")
IMPORT_ALL = """
import importlib, sys
for name in sys.stdin.read().split():
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name}: {error!r}")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy: setuptools would also pack what earlier builds have left in build/.
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    built = copy / "dist"
    run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", built, copy)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def client_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and, copied from ours, the packages that it requires."""
    folder = tmp_path_factory.mktemp("client")
    run("-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in sorted(closure(requirements_of(wheel))):
        for file in distribution(name).files or ():
            if ".." not in file.parts:
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)
    return python


def run(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], check=True, timeout=100)


def requirements_of(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


def closure(requirements: list[str]) -> Iterator[str]:
    """Yield the names of the required packages and of all that those require, without extras."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name
            yield from closure(distribution(requirement.name).requires or [])


def modules_of(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        files = [Path(name) for name in archive.namelist() if name.endswith(".py")]
    return sorted({".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files})


def test_every_module_of_the_wheel_can_be_imported_with_its_dependencies_alone(
    wheel: Path, client_python: Path
) -> None:
    modules = modules_of(wheel)
    assert {"chassis.client", "chassis.context", "shop.order.v1.order_service_pb2_grpc"} <= set(modules)

    done = subprocess.run(
        [client_python, "-I", "-W", "error", "-c", IMPORT_ALL],
        input="\n".join(modules),
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )

    assert done.stdout.splitlines() == []


def test_the_wheel_is_typed_and_holds_no_module_of_a_service(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()

    assert {"chassis/py.typed", "shop/py.typed", "buf/py.typed"} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"buf", "chassis", "shop"}
    assert {name.split("/")[1] for name in names if name.startswith("chassis/")} == {
        "__init__.py",
        "client",
        "context.py",
        "py.typed",
    }
