"""Whether the order service has recovered from an outage of what it calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.client import reason_of
from chassis.testing import new_uuid
from devstack.debug_channel import debug_credentials, debug_options
from tests.services.order_svc.placing import create_order_request

if TYPE_CHECKING:
    from devstack.services import Replica
    from devstack.stack import Stack

_ENOUGH_TO_CLOSE_A_BREAKER: Final = 2  # its default


def has_recovered(stack: Stack) -> bool:
    """Return whether every replica of the order service gets answers of the user service, and its breaker is closed.

    After an outage of the user service this takes longer than at the edge: each replica reconnects by itself. Each is
    called past the edge, as for debugging.
    """
    return all(_finds_no_buyer(replica, stack=stack) for replica in stack.replicas("order_svc"))


def _finds_no_buyer(replica: Replica, *, stack: Stack) -> bool:
    credentials, options = debug_credentials(stack.certificates), debug_options(replica.service.name)
    with grpc.secure_channel(replica.address, credentials, options) as channel:
        place = OrderServiceStub(channel).CreateOrder
        for _ in range(_ENOUGH_TO_CLOSE_A_BREAKER):
            try:
                place(create_order_request(new_uuid()), timeout=5)
            except grpc.RpcError as error:
                if reason_of(error) != "ORDERING_USER_NOT_FOUND":
                    return False
    return True
