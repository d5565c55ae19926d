"""What a release gives to callers: `make dist` makes these files, with what belongs into them and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zipfile import ZipFile

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from devstack.settings import REPOSITORY
from tests.support.documents import TRACKED

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT: Final = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
VERSION: Final = PROJECT["version"]
WHEEL: Final = f"shop-{VERSION}-py3-none-any.whl"
NPM: Final = f"shop-client-{VERSION}.tgz"
PROTOS: Final = f"shop-protos-{VERSION}.tar.gz"


def make(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "protos.package", folder], cwd=REPOSITORY, check=True, timeout=100)
    return folder


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("dist"))


def contents(dist: Path) -> dict[str, dict[str, bytes]]:
    """Return the files in each archive, by the archive's name."""
    found = {}
    for name in (NPM, PROTOS):
        with tarfile.open(dist / name) as archive:
            files = {entry.name: archive.extractfile(entry) for entry in archive}
            found[name] = {path: file.read() for path, file in files.items() if file}
    with ZipFile(dist / WHEEL) as wheel:
        found[WHEEL] = {path: wheel.read(path) for path in wheel.namelist()}
    return found


def test_a_release_has_five_files_for_callers(dist: Path) -> None:
    assert sorted(path.name for path in dist.iterdir()) == sorted((WHEEL, NPM, PROTOS, "shop.binpb", "openapi.json"))


def test_the_npm_package_holds_its_modules_their_types_and_nothing_else(dist: Path) -> None:
    written = {Path(path).stem for path in TRACKED if path.startswith("protos/typescript/src/")}
    generated = {
        path.removeprefix("generated/typescript/").removesuffix(".ts")
        for path in TRACKED
        if path.startswith("generated/typescript/")
    }
    modules = {f"package/dist/{name}" for name in written | generated}

    files = contents(dist)[NPM]
    manifest = json.loads(files["package/package.json"])

    expected = {f"{name}.{kind}" for name in modules for kind in ("js", "d.ts")}
    assert len(written) == 8
    assert set(files) == expected | {f"package/{name}" for name in ("package.json", "README.md", "LICENSE")}
    assert (manifest["name"], manifest["version"], manifest["license"]) == ("@shop/client", VERSION, "Apache-2.0")
    assert len(manifest["dependencies"]) == 3


def test_what_the_npm_package_depends_on_is_what_it_is_tested_with(dist: Path) -> None:
    dependencies: Mapping[str, str] = json.loads(contents(dist)[NPM]["package/package.json"])["dependencies"]
    installed = json.loads((REPOSITORY / "package.json").read_text())["devDependencies"]

    assert dependencies == {name: f"^{installed[name]}" for name in dependencies}


def test_the_contract_compiles_from_the_protos(dist: Path, tmp_path: Path) -> None:
    with tarfile.open(dist / PROTOS) as archive:
        archive.extractall(tmp_path, filter="data")
    top = tmp_path / PROTOS.removesuffix(".tar.gz")
    ours = sorted(str(path.relative_to(top / "protos")) for path in top.glob("protos/**/*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", "-Ithird_party", "--include_imports", "-oset"]
    subprocess.run([*command, *ours], cwd=top, check=True, timeout=60)

    compiled = {file.name: file for file in FileDescriptorSet.FromString((top / "set").read_bytes()).file}
    released = {file.name: file for file in FileDescriptorSet.FromString((dist / "shop.binpb").read_bytes()).file}

    assert {path for path in TRACKED if re.match(r"protos/shop/.*\.proto$", path)} == {
        f"protos/{name}" for name in ours
    }
    for name in ours:
        assert compiled[name].package.startswith("shop.")
        assert [each.name for each in compiled[name].message_type] == [
            each.name for each in released[name].message_type
        ]


def test_no_file_tells_of_the_machine_that_made_it(dist: Path) -> None:
    machine = (str(REPOSITORY), str(dist), sys.prefix, "/tmp/", str(Path.home()))
    for archive, files in contents(dist).items():
        for name, content in files.items():
            assert [each for each in machine if each.encode() in content] == [], f"{archive}: {name}"
    with tarfile.open(dist / PROTOS) as archive:
        assert {(entry.uid, entry.gid, entry.uname, entry.mode) for entry in archive} == {(0, 0, "", 0o644)}


def test_the_same_commit_makes_the_same_files(dist: Path, tmp_path: Path) -> None:
    again = make(tmp_path / "again")

    def digests(folder: Path) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}

    assert digests(again) == digests(dist)
