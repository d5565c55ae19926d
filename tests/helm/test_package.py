"""The chart of a release runs as it is: its images by digest from its registry, its runbook at its own address."""

from __future__ import annotations

import re
import subprocess
import sys

import yaml

from chassis.service import services
from devstack.settings import REPOSITORY
from tests.helm.chart import helm

IMAGES = dict(zip(sorted(["edge", *(service.host for service in services())]), "abcdef0123456789", strict=False))
DOCS = "https://github.example/owner/shop/blob/v1.2.3/docs"


def package(*digests: str) -> subprocess.CompletedProcess[str]:
    flags = ["--version", "1.2.3", "--registry", "ghcr.example/owner/shop", "--docs", DOCS]
    command = [sys.executable, str(REPOSITORY / "helm" / "package.py"), *flags]
    command += [part for each in digests for part in ("--digest", each)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_released_chart_names_its_images_by_digest_and_its_runbook() -> None:
    helm("version")  # skips without helm
    done = package(*(f"{name}=sha256:{letter * 64}" for name, letter in IMAGES.items()))
    assert done.returncode == 0, done.stderr

    shown = helm("template", "shop", done.stdout.strip(), "--set", "observability.prometheusRule.enabled=true")

    assert shown.returncode == 0, shown.stderr
    assert set(re.findall(r"image: \"?([^\s\"]+)", shown.stdout)) == {
        f"ghcr.example/owner/shop/{name}@sha256:{letter * 64}" for name, letter in IMAGES.items()
    }
    runbooks = re.findall(r"runbook_url: \"?(\S+?)#", shown.stdout)
    assert set(runbooks) == {f"{DOCS}/runbook.md"}
    chart = yaml.safe_load(helm("show", "chart", done.stdout.strip()).stdout)
    assert (chart["version"], chart["appVersion"]) == ("1.2.3", "1.2.3")


def test_a_chart_without_each_digest_is_not_packaged() -> None:
    done = package(f"edge=sha256:{'a' * 64}", "user-svc=latest")

    assert done.returncode == 1
    assert done.stderr.startswith(f"--digest: name each of {', '.join(IMAGES)} once")
