"""An example is removed, in a clone that has a service of its own too: what is left is whole, and runs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest

from chassis.service import ROOT, services
from devstack.scaffold.removal import FILE
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chassis.service import Service
    from tests.scaffold.clone import Clone

SUITE = ("pytest", "-q", "--numprocesses", "2", "--dist", "loadfile", "--no-loadscope-reorder")
EXAMPLES = [service for service in services() if (ROOT / service.name / FILE).exists()]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda service: service.name)
def test_what_is_left_without_an_example_is_whole_and_runs(clone: Clone, example: Service) -> None:
    remove = ("make", "service-remove", f"NAME={example.short_name}")
    clone.run("make", "service", "NAME=stock", f"READS={example.publishes}")
    clone.commit("Add a reader")
    refused = clone.run(*remove, fails=True)
    assert f"stock_svc reads events of {example.publishes}: remove it first" in refused
    assert "from `reads` in stock_svc/service.toml" in refused
    clone.run("make", "service-remove", "NAME=stock")
    clone.commit("Remove the reader")
    clone.run("make", "service", "NAME=stock")
    assert "uncommitted changes" in clone.run(*remove, fails=True)
    clone.commit("Add a service that reads nothing")

    assert f"Removed {example.name}" in clone.run(*remove)
    clone.commit("Remove the example")
    clone.run("make", "lint")
    clone.run(*SUITE, "tests/unit", "tests/integration/stock_svc")
    if (clone.root / ".tools" / "helm").exists():
        shown = clone.run(".tools/helm", "template", "shop", "helm/shop", "--set", "image.registry=r.example/shop")
        assert "name: stock-svc-headless" in shown
        assert f"name: {example.host}" not in shown

    clone.run("make", "service-remove", "NAME=stock")
    clone.commit("Remove stock")
    # Without the chassis' own: they name no service (tests/unit/test_chassis_alone.py).
    others = ("tests/integration", "tests/e2e", "--ignore", "tests/integration/chassis")
    passed = clone.run(*SUITE, *others, timeout_s=1800)
    assert int(re.findall(r"(\d+) passed", passed)[0]) > 2000
    with running(clone) as edge_url:
        account = {"email": "ada@example.com", "password": "correct horse battery", "displayName": "Ada"}
        created = httpx.post(f"{edge_url}/api/v1/users", json=account, trust_env=False)
    assert (created.status_code, created.json()["displayName"]) == (201, "Ada")
    shutil.rmtree(clone.root)


@contextlib.contextmanager
def running(clone: Clone) -> Iterator[str]:
    """Run the system of the clone with `make run` while the block runs; yield the URL of its edge."""
    port = free_port()
    env = {**clone.env, "SHOP_EDGE_PORT": str(port), "SHOP_HOME": str(clone.root / "home"), "SHOP_REPLICAS": "1"}
    process = subprocess.Popen(
        ["make", "run"], cwd=clone.root, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout
        assert any(line.startswith("Ready. ") for line in process.stdout), "it ended before it was ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        process.communicate(timeout=60)
