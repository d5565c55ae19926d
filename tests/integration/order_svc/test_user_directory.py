"""The user service as the order service asks for it, where it behaves as ours never should."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode, aio
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer, add_UserServiceServicer_to_server
from typing_extensions import override

import order_svc.buyer_client
from chassis.client import CallPolicy, connect
from chassis.client.breaker import Breaker, BreakerSettings
from chassis.client.errors import is_dependency_failure
from chassis.clock import new_id
from chassis.context import set_current_call
from chassis.errors import DeadlineExceeded
from chassis.testing import LOOPBACK
from order_svc.buyer_client import GrpcBuyerDirectory
from order_svc.errors import UserServiceUnavailable
from order_svc.model import BuyerId
from tests.support.builders import a_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shop.user.v1 import user_service_pb2 as pb


# Far from what a call takes on a busy machine.
FAIR_TIME_S = 60.0


@pytest.fixture(autouse=True)
def _fair_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_svc.buyer_client, "_FAIR_TIME_S", FAIR_TIME_S)


class UserService(UserServiceServicer):
    """Ends every call with a code; hangs if that is None."""

    def __init__(self, code: StatusCode | None) -> None:
        self._code = code

    @override
    async def BatchGetUsers(self, request: pb.BatchGetUsersRequest, context: Any) -> pb.BatchGetUsersResponse:
        if self._code is None:
            await asyncio.Event().wait()
        await context.abort(self._code, "no")
        raise AssertionError


@contextlib.asynccontextmanager
async def asking(
    code: StatusCode | None, *, timeout_s: float = 20, fail_max: int = 1
) -> AsyncIterator[tuple[GrpcBuyerDirectory, Breaker]]:
    """Yield a directory whose user service ends every call like this, and its circuit breaker."""
    server = aio.server()
    add_UserServiceServicer_to_server(UserService(code), server)
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    breaker = Breaker("user_svc", BreakerSettings(fail_max=fail_max), is_failure=is_dependency_failure)
    async with connect(f"{LOOPBACK}:{port}", policy=CallPolicy(timeout_s=timeout_s)) as channel:
        yield GrpcBuyerDirectory(channel, breaker), breaker
    await server.stop(None)


def serve_a_caller_who_waits(seconds: float) -> None:
    set_current_call(a_call(deadline=time.monotonic() + seconds))


async def test_a_call_that_the_user_service_cancels_counts_as_its_failure() -> None:
    # As a server does that is forced to stop.
    async with asking(StatusCode.CANCELLED, fail_max=2) as (users, breaker):
        for _ in range(2):
            with pytest.raises(UserServiceUnavailable):
                await users.refusals([BuyerId(new_id())])

        assert breaker.state == "open"


async def test_a_caller_without_patience_does_not_open_the_circuit_for_the_others() -> None:
    async with asking(None, timeout_s=0.2) as (users, breaker):
        serve_a_caller_who_waits(FAIR_TIME_S / 2)

        with pytest.raises(DeadlineExceeded):
            await users.refusals([BuyerId(new_id())])

        assert breaker.state == "closed"


async def test_a_user_service_that_a_patient_caller_waits_for_in_vain_has_failed() -> None:
    async with asking(None, timeout_s=0.2) as (users, breaker):
        serve_a_caller_who_waits(2 * FAIR_TIME_S)

        with pytest.raises(UserServiceUnavailable) as failed:
            await users.refusals([BuyerId(new_id())])

        assert failed.value.retry_after_s == 1
        assert breaker.state == "open"

        with pytest.raises(UserServiceUnavailable) as rejected:
            await users.refusals([BuyerId(new_id())])

        assert rejected.value.retry_after_s is not None
        assert rejected.value.retry_after_s > 1, "not asked again before the circuit breaker lets a call pass"


async def test_an_error_of_the_user_service_is_its_failure_however_patient_the_caller_is() -> None:
    async with asking(StatusCode.INTERNAL) as (users, breaker):
        serve_a_caller_who_waits(FAIR_TIME_S / 2)

        with pytest.raises(UserServiceUnavailable):
            await users.refusals([BuyerId(new_id())])

        assert breaker.state == "open"


async def test_a_refusal_of_the_user_service_is_a_defect_of_ours_and_shown_as_it_is() -> None:
    async with asking(StatusCode.INVALID_ARGUMENT) as (users, breaker):
        with pytest.raises(aio.AioRpcError):
            await users.refusals([BuyerId(new_id())])

        assert breaker.state == "closed"
