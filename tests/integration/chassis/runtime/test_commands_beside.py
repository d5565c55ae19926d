"""Every command of every service runs beside a running process that has the same environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from chassis.testing import LOOPBACK, new_uuid
from devstack.services import SERVICES
from docs.settings_page import commands_of
from tests.integration.databases import fresh_database
from tests.integration.replica import run, serving_process
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from devstack.postgres import PostgresServer

RUNS_UNTIL_STOPPED = {"serve", "worker"}
ARGUMENTS = {"events replay": " --since 2026-11-25T18:00:00Z", "admin create": " ada@example.com"}


async def test_every_command_that_ends_runs_beside_a_running_process(
    postgres: PostgresServer, redis_url: str, tmp_path: Path
) -> None:
    failed: dict[str, str] = {}
    tried: list[str] = []
    for service in SERVICES:
        env = {
            "REDIS_URL": redis_url,
            "METRICS_PORT": str(free_port()),
            "HEALTH_PORT": str(free_port()),
            **{called.url_variable: f"{LOOPBACK}:1" for called in SERVICES},
        }
        with fresh_database(postgres, service.name) as database:  # one of the commands makes a signing key
            env["DATABASE_URL"] = database.url
            async with serving_process(service.name, tmp_path, **env):
                async with httpx.AsyncClient(trust_env=False) as client:
                    metrics = (await client.get(f"http://{LOOPBACK}:{env['METRICS_PORT']}/metrics")).text
                assert 'shop_process_info{command="serve"} 1.0' in metrics
                for command in commands_of(service.name):
                    if command in RUNS_UNTIL_STOPPED:
                        continue
                    tried.append(command)
                    line = command + ARGUMENTS.get(command, "")
                    ended = run(service.name, line, typed=f"{new_uuid()}\n", **env)
                    if (ended.returncode, ended.stderr) != (0, ""):
                        failed[f"{service.name} {command}"] = ended.stderr

    assert failed == {}
    assert {"migrate", "events replay"} <= set(tried)
