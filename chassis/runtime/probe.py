"""Health checks by grpc.health.v1.

`python -m chassis.runtime.probe` exits with code 0 if the replica in this container is SERVING: for images without a
shell.
"""

import os
import sys
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

_TIMEOUT_S: Final = 2


def check_health(channel: grpc.Channel, *, service: str = "", timeout_s: float) -> health_pb2.HealthCheckResponse:
    """Return the health of a service; without a name, that of the whole server.

    Raises:
        grpc.RpcError: the server does not answer within `timeout_s` seconds, or does not know the service.
    """
    # Not HealthStub: its type stubs lack its methods.
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)


def main() -> None:
    """Check the health on HEALTH_PORT, in clear text; unless it is SERVING, print one line and exit with code 1."""
    # Not ServerSettings: importing them takes twice as long as the rest of the probe, which runs every 10 s in every
    # container.
    port = os.environ.get("HEALTH_PORT", "0")
    if port == "0":
        sys.exit("HEALTH_PORT is 0: there is nothing to ask.")
    with grpc.insecure_channel(f"127.0.0.1:{port}", (("grpc.enable_http_proxy", 0),)) as channel:
        try:
            status = check_health(channel, timeout_s=_TIMEOUT_S).status
        except grpc.RpcError as error:
            sys.exit(f"No answer on {port}: {error.code().name}.")
    if status != health_pb2.HealthCheckResponse.SERVING:
        sys.exit(f"{health_pb2.HealthCheckResponse.ServingStatus.Name(status)}.")


if __name__ == "__main__":
    main()
