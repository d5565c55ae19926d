"""The buyers over gRPC: BatchGetUsers of the user service, behind a circuit breaker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from grpc import aio
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_service_pb2_grpc import UserServiceStub
from typing_extensions import override

from chassis.client.breaker import CircuitOpen, Inconclusive
from chassis.client.errors import is_dependency_failure
from chassis.context import current_call
from chassis.errors import DeadlineExceeded
from order_svc.buyers import BuyerDirectory
from order_svc.errors import OrderingUserNotFound, UserNotActive, UserServiceUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chassis.client.breaker import Breaker
    from order_svc.errors import OrderError
    from order_svc.model import BuyerId

# While the circuit is closed the next call is likely to succeed.
_RETRY_AFTER_S: Final = 1

# If a caller has less time left than this, its timeout does not count as a failure of the user service. Otherwise a few
# impatient callers would open the circuit for everyone.
_FAIR_TIME_S: Final = 0.5


class GrpcBuyerDirectory(BuyerDirectory):
    """Asks the user service about at most 200 users, the limit of the contract.

    A batch of calls has the deadline of the channel's policy and none of its callers': one impatient caller must not
    fail the others.
    """

    def __init__(self, channel: aio.Channel, breaker: Breaker) -> None:
        self._stub = UserServiceStub(channel)
        self._breaker = breaker

    @override
    async def refusals(self, user_ids: Collection[BuyerId]) -> Mapping[BuyerId, OrderError]:
        ids = [str(user_id) for user_id in user_ids]
        found = await self._ask(pb.BatchGetUsersRequest(ids=ids, view=user_pb2.USER_VIEW_STATE))
        states = {user.id: user.state for user in found.users}
        refused: dict[BuyerId, OrderError] = {}
        for user_id in user_ids:
            state = states.get(str(user_id))
            if state is None:
                refused[user_id] = OrderingUserNotFound(user_id)
            elif state != user_pb2.USER_STATE_ACTIVE:
                refused[user_id] = UserNotActive(user_id)
        return refused

    async def _ask(self, request: pb.BatchGetUsersRequest) -> pb.BatchGetUsersResponse:
        serving = current_call()
        had_fair_time = serving is None or serving.time_left_s() >= _FAIR_TIME_S

        async def call() -> pb.BatchGetUsersResponse:
            try:
                return await self._stub.BatchGetUsers(request)
            except aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not had_fair_time:
                    raise Inconclusive from error
                raise

        try:
            return await self._breaker.call(call)
        except Inconclusive as error:
            raise DeadlineExceeded from error
        except CircuitOpen as error:
            raise UserServiceUnavailable(retry_after_s=error.retry_after_s) from error
        except Exception as error:
            if is_dependency_failure(error):
                raise UserServiceUnavailable(retry_after_s=_RETRY_AFTER_S) from error
            raise
