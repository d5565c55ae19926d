"""`python -m chassis.runtime.probe`: exit code 0 if this container's replica is SERVING, for images without a shell."""

from __future__ import annotations

import os
import sys
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

_TIMEOUT_S: Final = 2


def main() -> None:
    """Ask grpc.health.v1 on HEALTH_PORT, in clear text, and exit with 1 and one line unless it says SERVING."""
    # Not ServerSettings: to import them takes twice as long as everything else here, every 10 s in every container.
    port = os.environ.get("HEALTH_PORT", "0")
    if port == "0":
        sys.exit("HEALTH_PORT is 0: there is nothing to ask.")
    with grpc.insecure_channel(f"127.0.0.1:{port}", (("grpc.enable_http_proxy", 0),)) as channel:
        # Not HealthStub: its type stubs do not know its methods.
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            sys.exit(f"No answer on {port}: {error.code().name}.")
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        sys.exit(f"{health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}.")


if __name__ == "__main__":
    main()
