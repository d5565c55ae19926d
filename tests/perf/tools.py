"""The programs and packages that a benchmark needs and the project does not: found, or installed below `.bench`.

Nothing is installed into the system: Debian's packages are fetched by apt as any user may, and unpacked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devstack.postgres_cluster import find_binaries
from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

BENCH: Final = REPOSITORY / ".bench"
PEERS: Final = Path(__file__).parent / "peers"

_PACKAGES: Final = {"h2load": "nghttp2-client", "wrk": "wrk", "nginx": "nginx-light"}
_UNPACKED: Final = BENCH / "debian"
_GO_SERVER: Final = BENCH / "grpc_go"


class ToolMissing(Exception):
    """A program is not there and cannot be fetched. The message says what to install."""


def pgbench() -> str:
    """Return the pgbench of the stack's own PostgreSQL."""
    return str(find_binaries() / "pgbench")


def program(name: str) -> str:
    """Return the path of h2load, wrk or nginx.

    Raises:
        ToolMissing: there is none, even after `install`.
    """
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", f"{_UNPACKED}/usr/bin", f"{_UNPACKED}/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise ToolMissing(f"{name} is missing: on Debian, apt-get install --no-install-recommends {_PACKAGES[name]}")
    return found


def environment() -> dict[str, str]:
    """Return the environment in which programs find the libraries that were unpacked with them."""
    libraries = ":".join(str(folder) for folder in _UNPACKED.glob("usr/lib/*-linux-gnu"))
    return {"PATH": os.environ.get("PATH", os.defpath), "LD_LIBRARY_PATH": libraries}


def install(report: Callable[[str], None]) -> None:
    """Install whatever is missing: programs, Express and what it uses, FastAPI and what it uses.

    Raises:
        ToolMissing: something cannot be had here.
    """
    BENCH.mkdir(exist_ok=True)
    _fetch_programs(report)
    _install_express(report)
    _install_fastapi(report)
    _build_go(report)


def fastapi_python() -> Path:
    """Return the interpreter that knows FastAPI."""
    return BENCH / "venv" / "bin" / "python"


def go_server() -> Path | None:
    """Return the peer in Go; None where there is no Go."""
    return _GO_SERVER if _GO_SERVER.exists() else None


def _fetch_programs(report: Callable[[str], None]) -> None:
    missing = [package for name, package in _PACKAGES.items() if not _is_found(name)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ToolMissing(f"{', '.join(missing)}: install these packages, or what your system calls them")
    report(f"Fetching {', '.join(missing)} with apt into {_UNPACKED}")
    # Lists and cache of our own: the system's need root, and may be empty.
    apt = BENCH / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    own = ("-o", f"Dir::State::Lists={apt}/lists", "-o", f"Dir::Cache={apt}", "-o", "Debug::NoLocking=1", "-qq")
    _run("apt-get", *own, "update")
    _run("apt-get", *own, "--yes", "--no-install-recommends", "--download-only", "install", *missing)
    for package in (apt / "archives").glob("*.deb"):
        _run("dpkg", "-x", str(package), str(_UNPACKED))
    for name in _PACKAGES:
        program(name)


def _is_found(name: str) -> bool:
    try:
        program(name)
    except ToolMissing:
        return False
    return True


def _install_express(report: Callable[[str], None]) -> None:
    lock, ready = PEERS / "express" / "package-lock.json", PEERS / "express" / "node_modules" / "ready"
    if not shutil.which("npm"):
        raise ToolMissing("npm is missing: install Node.js 20 or newer")
    if _is_older(ready, than=lock):
        report("Installing Express and what it uses with npm")
        _run("npm", "ci", "--silent", "--no-audit", "--no-fund", "--prefix", str(lock.parent))
        ready.touch()


def _install_fastapi(report: Callable[[str], None]) -> None:
    lock, ready = REPOSITORY / "requirements" / "bench.txt", BENCH / "venv" / "ready"
    if _is_older(ready, than=lock):
        report(f"Installing FastAPI and what it uses into {ready.parent}")
        _run(sys.executable, "-m", "venv", "--clear", str(ready.parent))
        pip = (str(fastapi_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(*pip, "--require-hashes", "--no-deps", "-r", str(lock))
        ready.touch()


def _build_go(report: Callable[[str], None]) -> None:
    source = PEERS / "grpc_go" / "main.go"
    if not shutil.which("go"):
        report("There is no Go: without the peer in Go")
    elif _is_older(_GO_SERVER, than=source):
        report(f"Building {_GO_SERVER}")
        _run("go", "build", "-C", str(source.parent), "-o", str(_GO_SERVER), ".")


def _is_older(ready: Path, *, than: Path) -> bool:
    return not ready.exists() or ready.stat().st_mtime < than.stat().st_mtime


def _run(*command: str) -> None:
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ToolMissing(f"`{' '.join(command)}` failed: {ended.stderr.strip() or ended.stdout.strip()}")
