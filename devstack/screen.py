"""The text that the terminal shows when the stack is ready."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from devstack.stack import Stack

_ORDER_SCRIPT: Final = """\
import os
import grpc
from google.type.money_pb2 import Money
from shop.order.v1.order_service_pb2 import CreateOrderItem, CreateOrderRequest
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

as_ada = [("authorization", "Bearer " + os.environ["TOKEN"])]
with grpc.insecure_channel("{edge}") as channel:
    price = Money(units=4, nanos=500_000_000)
    tea = CreateOrderItem(product_id="tea", name="Tea", quantity=2, unit_price=price)
    order = CreateOrderRequest(currency_code="EUR", items=[tea])
    print(OrderServiceStub(channel).CreateOrder(order, metadata=as_ada, timeout=5))
"""


def ready_screen(stack: Stack) -> str:
    """Return what runs where, how to stop it, and three calls to paste into one shell."""
    return f"""
Ready. REST and gRPC at {stack.edge_url}
       and with TLS at {stack.edge_tls_url} (trust {_short(stack.certificates.authority)})

  Docs         {stack.edge_url}/docs
  Admin        {stack.admin_email}, password: cat {_short(stack.home.admin)}
  Envoy        admin page {stack.edge.admin_url}
{_replicas(stack)}
{_databases(stack)}
  Events       {_events(stack)}
  Logs         {_short(stack.home.logs)}/*.log
{_metrics(stack)}

Ctrl-C stops everything and keeps the data; `make clean` removes it.

1. A user who logs in, over REST:

{_log_in(stack)}

2. Her order, with the typed Python stubs:

{_place_order(stack)}
3. Her orders, over gRPC reflection:

{_list_orders(stack)}
"""


def _replicas(stack: Stack) -> str:
    return "\n".join(
        f"  {name:<13}" + ", ".join(replica.address for replica in stack.replicas(name)) for name in stack.service_names
    )


def _metrics(stack: Stack) -> str:
    urls = {"edge": stack.edge.metrics_url}
    urls |= {replica.name: replica.metrics_url for name in stack.service_names for replica in stack.replicas(name)}
    return "  Metrics      " + "\n               ".join(f"{url}  {name}" for name, url in urls.items())


def _databases(stack: Stack) -> str:
    return "\n".join(f"  {name:<13}{stack.psql_url(name)}" for name in stack.settings.database_urls)


def _events(stack: Stack) -> str:
    if stack.redis_url is None:
        return "wait in the outbox: this machine has no Redis. Install redis-server, or set REDIS_URL"
    # Do not print the URL of an external Redis: it may hold a password.
    return f"in {stack.redis.url}" if stack.redis else "in the Redis of REDIS_URL"


def _log_in(stack: Stack) -> str:
    # The date makes the email new each time the calls are pasted.
    return f"""\
LOGIN='"email": "ada-'$(date +%s)'@example.com", "password": "correct horse battery"'
curl -sS {stack.edge_url}/api/v1/users -H 'content-type: application/json' \\
  -d "{{$LOGIN, \\"displayName\\": \\"Ada\\"}}"; echo
export TOKEN=$(curl -sS {stack.edge_url}/api/v1/sessions -H 'content-type: application/json' \\
  -d "{{$LOGIN}}" | sed 's/.*"accessToken":"\\([^"]*\\)".*/\\1/')"""


def _place_order(stack: Stack) -> str:
    script = _ORDER_SCRIPT.format(edge=_authority(stack))
    return f"{_short(Path(sys.executable))} - <<'PY'\n{script}PY\n"


def _list_orders(stack: Stack) -> str:
    grpcurl = shutil.which("grpcurl")
    header = '-H "authorization: Bearer $TOKEN"'
    with_grpcurl = (
        f"{_short(Path(grpcurl)) if grpcurl else 'grpcurl'} -plaintext {header} \\\n"
        f"  -d '{{\"page_size\": 1}}' {_authority(stack)} shop.order.v1.OrderService/ListOrders"
    )
    buf = REPOSITORY / "node_modules" / ".bin" / "buf"
    if grpcurl or not buf.exists():
        return with_grpcurl
    return f"""\
{_short(buf)} curl --protocol grpc --http2-prior-knowledge {header} \\
  -d '{{"page_size": 1}}' {stack.edge_url}/shop.order.v1.OrderService/ListOrders

   or, once grpcurl is installed:

{with_grpcurl}"""


def _authority(stack: Stack) -> str:
    return urlsplit(stack.edge_url).netloc


def _short(path: Path) -> str:
    """Return the path relative to the working directory, if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
