"""What gRPC in Python costs at the least: handlers that look at nothing and give one answer, on grpc.aio and uvloop.

The answers are as large as real ones; options and mutual TLS are the services' own.
"""

import base64
import os
import sys
from pathlib import Path

import grpc
import uvloop
from grpc import aio
from shop.order.v1 import order_pb2, order_service_pb2_grpc
from shop.user.v1 import user_pb2, user_service_pb2_grpc

OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class UserServicer(user_service_pb2_grpc.UserServiceServicer):
    def __init__(self, user):
        self.user = user

    async def GetUser(self, request, context):
        return self.user


class OrderServicer(order_service_pb2_grpc.OrderServiceServicer):
    def __init__(self, order):
        self.order = order

    async def CreateOrder(self, request, context):
        return self.order


def credentials(folder):
    ca, key, certificate = (Path(folder, name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)


async def serve(user, order):
    server = aio.server(options=OPTIONS)
    user_service_pb2_grpc.add_UserServiceServicer_to_server(UserServicer(user), server)
    order_service_pb2_grpc.add_OrderServiceServicer_to_server(OrderServicer(order), server)
    server.add_secure_port(f"127.0.0.1:{os.environ['PORT']}", credentials(os.environ["TLS_FOLDER"]))
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    user, order = map(base64.b64decode, sys.argv[1:])
    uvloop.run(serve(user_pb2.User.FromString(user), order_pb2.Order.FromString(order)))
