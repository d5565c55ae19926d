"""The buyers over gRPC: BatchGetUsers of the user service, behind a circuit breaker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from grpc import aio
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.client.breaker import CircuitOpen, Inconclusive
from chassis.client.errors import is_dependency_failure
from chassis.context import current_call
from chassis.errors import DeadlineExceeded
from order_svc.errors import OrderingUserNotFound, UserNotActive, UserServiceUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from chassis.client.breaker import Breaker
    from order_svc.errors import OrderError
    from order_svc.model import BuyerId

# While the circuit is closed the next call is likely to succeed.
_RETRY_AFTER_S: Final = 1

# If a caller has less time left than this, its timeout does not count as a failure of the user service. Otherwise a few
# impatient callers would open the circuit for everyone.
_FAIR_TIME_S: Final = 0.5


class GrpcBuyerDirectory:
    """Asks the user service.

    Args:
        channel: to the user service; its policy bounds the deadline.
        breaker: of the user service.
    """

    def __init__(self, channel: aio.Channel, breaker: Breaker) -> None:
        self._stub = UserServiceStub(channel)
        self._breaker = breaker

    async def refusals(self, user_ids: Collection[BuyerId]) -> Mapping[BuyerId, OrderError]:
        """Return a refusal for each user who may not order; users who may order are absent.

        At most 200 users, the limit of the contract. A batch of calls has the policy's deadline and none of its
        callers': one impatient caller must not fail the others.

        Raises:
            UserServiceUnavailable: the user service does not answer, or the circuit is open.
            DeadlineExceeded: the caller left too little time to ask.
        """
        states = await self._states([str(user_id) for user_id in user_ids])
        refused: dict[BuyerId, OrderError] = {}
        for user_id in user_ids:
            state = states.get(str(user_id))
            if state is None:
                refused[user_id] = OrderingUserNotFound(user_id)
            elif state != user_pb2.USER_STATE_ACTIVE:
                refused[user_id] = UserNotActive(user_id)
        return refused

    async def _states(self, user_ids: Sequence[str]) -> Mapping[str, user_pb2.UserState.ValueType]:
        """Return the states of the users that exist."""
        try:
            found = await self._ask(pb.BatchGetUsersRequest(ids=user_ids, view=user_pb2.USER_VIEW_STATE))
        except aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT or len(user_ids) == 1:
                raise
            # A user service of the previous release sends whole users, whose profiles can be too large for one answer.
            # Other buyers of the batch must not be refused for that.
            middle = len(user_ids) // 2
            return {**await self._states(user_ids[:middle]), **await self._states(user_ids[middle:])}
        return {user.id: user.state for user in found.users}

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
