"""A replica's description of itself: health by service name, reflection, SystemService."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from shop.system.v1 import system_service_pb2 as pb
from shop.system.v1.system_service_pb2_grpc import SystemServiceStub

from chassis.server.contract import service_names
from chassis.service import services
from chassis.testing import LOOPBACK, plain_channel, refusal_of, server_settings
from tests.integration.chassis.notes import notes_service
from tests.integration.inprocess import NOTES, database_settings

if TYPE_CHECKING:
    from tests.integration.databases import TestDatabase

NO_DATABASE = database_settings(f"postgresql://nobody:wrong@{LOOPBACK}:1/none")
SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_a_replica_is_healthy_under_the_names_of_its_services(notes_address: str) -> None:
    for service in ("", "notes.v1.NoteService", "notes.v1.KeyService", "shop.system.v1.SystemService"):
        assert await check(notes_address, service) == SERVING


@pytest.mark.parametrize("service", sorted({*service_names()} - {"shop.system.v1.SystemService"}))
async def test_a_service_of_another_replica_is_not_known(notes_address: str, service: str) -> None:
    with pytest.raises(aio.AioRpcError) as failure:
        await check(notes_address, service)

    assert failure.value.code() is StatusCode.NOT_FOUND


async def test_liveness_does_not_ask_the_database() -> None:
    async with notes_service(NO_DATABASE) as address:
        assert await check(address, "notes.v1.NoteService") == SERVING


async def test_the_system_service_reports_the_health_of_a_replica(notes_address: str) -> None:
    async with plain_channel(notes_address) as channel:
        health = await SystemServiceStub(channel).GetHealth(pb.GetHealthRequest())

    assert health.status == pb.HEALTH_STATUS_HEALTHY
    assert (health.service, health.version) == (NOTES, "dev")
    assert abs(health.timestamp.ToSeconds() - time.time()) < 5
    assert 0 < health.uptime.ToSeconds() + 1 < 60
    assert 1_000 < health.memory.rss_kib <= health.memory.peak_rss_kib


async def test_the_system_service_says_when_the_database_is_gone() -> None:
    async with notes_service(NO_DATABASE) as address, plain_channel(address) as channel:
        refusal = await refusal_of(SystemServiceStub(channel).GetHealth(pb.GetHealthRequest()))

    assert (refusal.code, refusal.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")


async def test_reflection_names_the_services_of_the_whole_contract(notes_database: TestDatabase) -> None:
    settings = database_settings(notes_database.url)
    async with notes_service(settings, server=server_settings(grpc_reflection=True)) as address:
        names = await reflected(address)

    assert names >= {*service_names(), "grpc.health.v1.Health"}
    assert {served for service in services() for served in service.serves} < {*service_names()}


async def test_reflection_is_off_unless_switched_on(notes_address: str) -> None:
    with pytest.raises(aio.AioRpcError) as failure:
        await reflected(notes_address)

    assert failure.value.code() is StatusCode.UNIMPLEMENTED


async def check(address: str, service: str) -> int:
    async with plain_channel(address) as channel:
        return (await HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))).status


async def reflected(address: str) -> set[str]:
    async with plain_channel(address) as channel:
        questions = [reflection_pb2.ServerReflectionRequest(list_services="")]
        answers = ServerReflectionStub(channel).ServerReflectionInfo(iter(questions))
        return {each.name async for answer in answers for each in answer.list_services_response.service}
