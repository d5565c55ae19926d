"""Calls to one replica past the edge, as for debugging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.client import reason_of
from chassis.testing import new_uuid
from tests.support.requests import create_order_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devstack.services import Replica
    from devstack.stack import Stack

_ENOUGH_TO_CLOSE_A_BREAKER: Final = 2  # its default


def debug_credentials(stack: Stack) -> grpc.ChannelCredentials:
    """Return the credentials that every replica admits."""
    folder = stack.certificates.folder_of("debug").path
    authorities, key, certificate = ((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.ssl_channel_credentials(authorities, key, certificate)


def debug_options(replica: Replica) -> Sequence[tuple[str, str | int]]:
    """Return the options of a channel to the replica: no retries, and the name in its certificate."""
    name = replica.service.name.replace("_", "-")
    return [("grpc.ssl_target_name_override", name), ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]


def orders_reach_users(stack: Stack) -> bool:
    """Return whether every replica of the order service gets answers of the user service, and its breaker is closed.

    After an outage of the user service this takes longer than at the edge: each replica reconnects by itself.
    """
    return all(_finds_no_buyer(replica, stack=stack) for replica in stack.replicas("order_svc"))


def _finds_no_buyer(replica: Replica, *, stack: Stack) -> bool:
    with grpc.secure_channel(replica.address, debug_credentials(stack), debug_options(replica)) as channel:
        place = OrderServiceStub(channel).CreateOrder
        for _ in range(_ENOUGH_TO_CLOSE_A_BREAKER):
            try:
                place(create_order_request(new_uuid()), timeout=5)
            except grpc.RpcError as error:
                if reason_of(error) != "ORDERING_USER_NOT_FOUND":
                    return False
    return True
