from __future__ import annotations

import socket
import threading

import pytest

from devstack.errors import StackError
from devstack.ports import LOOPBACK, reserve_edge_port


def test_a_port_that_is_released_in_time_is_reserved() -> None:
    with socket.create_server((LOOPBACK, 0)) as leaving:
        timer = threading.Timer(0.2, leaving.close)
        timer.start()
        reserved = reserve_edge_port(leaving.getsockname()[1], variable="PORT")
        timer.join()

    assert reserved.number
    reserved.release()


def test_a_taken_port_is_reported_with_the_setting_that_changes_it() -> None:
    with socket.create_server((LOOPBACK, 0)) as kept:
        port = kept.getsockname()[1]
        with pytest.raises(StackError, match=f"^port {port} is taken: .* set SHOP_EDGE_PORT to another$"):
            reserve_edge_port(port, variable="SHOP_EDGE_PORT")
