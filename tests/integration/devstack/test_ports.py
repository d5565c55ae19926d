from __future__ import annotations

import socket
import sys

import pytest

from devstack.errors import StackError
from devstack.ports import LOOPBACK, ReservedPort, reserve_edge_port


def _server(port: int) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((LOOPBACK, port))
    server.listen()
    return server


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the port")
def test_a_server_can_listen_at_a_reserved_port_and_come_back() -> None:
    reserved = ReservedPort()

    for _ in range(2):
        with _server(reserved.number) as server, socket.create_connection(server.getsockname()) as client:
            assert client.getpeername()[1] == reserved.number

    reserved.release()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the port")
def test_a_reserved_port_is_not_given_to_other_sockets() -> None:
    reserved = ReservedPort()

    others = [_server(0) for _ in range(200)]

    assert reserved.number not in {other.getsockname()[1] for other in others}
    for other in others:
        other.close()
    reserved.release()


def test_a_taken_edge_port_is_one_line_that_says_what_to_do() -> None:
    with _server(0) as server:
        number = server.getsockname()[1]

        with pytest.raises(StackError, match=f"^port {number} is taken: .*SHOP_EDGE_PORT"):
            reserve_edge_port(number, variable="SHOP_EDGE_PORT")
