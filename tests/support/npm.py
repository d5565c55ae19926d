"""Projects in which the npm package of the client is installed, and nothing but what it depends on."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

_DEPENDENCIES: Final = ("@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web")
_TOOLS: Final = REPOSITORY / "node_modules" / ".bin"


def project(folder: Path, package: Path) -> Path:
    """Install the package into a new project in this folder; return the folder.

    Its dependencies come from our node_modules, not from a registry.
    """
    folder.mkdir(exist_ok=True)
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    dependencies = [str(REPOSITORY / "node_modules" / name) for name in _DEPENDENCIES]
    options = ("--offline", "--install-links", "--no-audit", "--no-fund", "--silent")
    run("npm", "install", *options, str(package), *dependencies, folder=folder)
    return folder


def bundle(module: str, *, folder: Path) -> Path:
    """Return one file, for browsers and Node, with a TypeScript module of the project and all that it imports."""
    target = folder / f"{module}.bundle.js"
    options = ("--bundle", "--format=esm", "--platform=browser", "--log-level=error")
    run(str(_TOOLS / "esbuild"), f"{module}.ts", *options, f"--outfile={target}", folder=folder)
    return target


def type_check(folder: Path) -> str:
    """Return what `tsc --strict` says of the project's modules: nothing if they are right."""
    options = ("--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable")
    sources = sorted(path.name for path in folder.glob("*.ts"))
    return run(str(_TOOLS / "tsc"), *options, *sources, folder=folder, fails=None)


def run(*command: str, folder: Path, fails: bool | None = False) -> str:
    """Return what a command prints; if `fails` is None, it may fail."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    assert fails is None or bool(done.returncode) == fails, done.stdout + done.stderr
    return done.stdout
