"""Makes what a release gives to callers: wheel, npm package, descriptor set, OpenAPI document, protos.

python -m protos.package .build/dist

The same commit gives the same files, but for the compression of the machine's zlib.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_OF_WHEEL: Final = ("chassis", "generated", "protos", "*_svc/*", "LICENSE", "README.md", "pyproject.toml", "setup.py")
_OF_PROTOS: Final = ("protos/*.proto", "third_party/*.proto", "buf.yaml", "LICENSE")
_PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def main(target: Path) -> None:
    """Make the files of a release in the folder `target`, which is emptied."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("shop.binpb", "openapi.json"):
        shutil.copyfile(ROOT / "generated" / name, target / name)
    _write_protos(target / f"{_PROJECT['name']}-protos-{_PROJECT['version']}.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        write_wheel(Path(folder, "wheel"), target)
        write_npm_package(Path(folder, "npm"), target)
    for path in sorted(target.iterdir()):
        print(path)


def _write_protos(path: Path) -> None:
    """Write an archive from which `buf` and `protoc -I protos -I third_party` compile the contract."""
    top = path.name.removesuffix(".tar.gz")
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in _tracked(*_OF_PROTOS):
            content = (ROOT / name).read_bytes()
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mtime = len(content), _commit_time()
            archive.addfile(entry, io.BytesIO(content))
    path.write_bytes(gzip.compress(plain.getvalue(), mtime=0))


def write_wheel(sources: Path, target: Path) -> None:
    """Build the wheel into the folder `target`.

    Args:
        sources: a folder that does not exist yet, for what is built.
        target: of the wheel.
    """
    # From a copy: setuptools writes beside its sources.
    for name in _tracked(*_OF_WHEEL):
        copy = sources / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy)
    command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    _run(*command, "--wheel-dir", str(target), str(sources), env={"SOURCE_DATE_EPOCH": str(_commit_time())})


def write_npm_package(sources: Path, target: Path) -> None:
    """Compile the TypeScript client and write its package into the folder `target`.

    Args:
        sources: a folder that does not exist yet, for what is compiled.
        target: of the package.
    """
    shutil.copytree(ROOT / "protos" / "typescript", sources)
    shutil.copytree(ROOT / "generated" / "typescript", sources / "src", dirs_exist_ok=True)
    shutil.copyfile(ROOT / "LICENSE", sources / "LICENSE")
    (sources / "node_modules").symlink_to(ROOT / "node_modules")
    manifest = sources / "package.json"
    described = json.loads(manifest.read_text(encoding="utf-8")) | {"version": _PROJECT["version"]}
    manifest.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    tsc = str(ROOT / "node_modules" / ".bin" / "tsc")
    _run(tsc, "--project", str(sources), "--rootDir", str(sources / "src"), "--outDir", str(sources / "dist"))
    _run("npm", "pack", str(sources), "--silent", "--ignore-scripts", "--pack-destination", str(target))


def _tracked(*patterns: str) -> list[str]:
    listed = subprocess.run(
        ("git", "ls-files", "-z", *patterns), cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def _commit_time() -> int:
    command = ("git", "log", "-1", "--format=%ct")
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        # Of tsc, stdout has the errors.
        raise SystemExit(f"{' '.join(command)}\n{done.stdout.decode()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
