"""Mutual TLS between real services and a real Envoy, and certificates that are replaced while calls run."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from cryptography import x509
from google.type.money_pb2 import Money
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from shop.order.v1 import order_service_pb2 as order_pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.system.v1.system_service_pb2 import GetHealthRequest
from shop.system.v1.system_service_pb2_grpc import SystemServiceStub
from shop.user.v1 import session_service_pb2 as session_pb
from shop.user.v1 import user_service_pb2 as user_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.client import reason_of
from chassis.service import services
from devstack.certificates import Certificates, Subject
from devstack.ports import LOOPBACK
from devstack.settings import REPOSITORY, Settings
from devstack.stack import Stack
from envoy.binary import find_envoy
from envoy.environments import laptop
from envoy.render import render, render_secrets
from tests.support.logins import NO_LIMITS
from tests.support.ports import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PASSWORD = "correct horse battery"
SERVICES = [service.name for service in services()]


@pytest.fixture(scope="module")
def health_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, health_port: int) -> Iterator[Stack]:
    settings = Settings(
        **NO_LIMITS,
        home=tmp_path_factory.mktemp("tls") / "home",
        edge_port=free_port(),
        edge_tls_port=0,
        replicas=1,
        drain_s=0,
    )
    with Stack(settings, extra_env={"user_svc": {"HEALTH_PORT": str(health_port)}}) as stack:
        yield stack


@pytest.fixture(scope="module")
def stranger(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of our CA with a name that no service admits."""
    folder = tmp_path_factory.mktemp("stranger") / "stranger"
    stack.certificates.issue(Subject("stranger"), into=folder)
    return folder


@dataclass(frozen=True)
class LoggedIn:
    id: str
    token: str

    @property
    def metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token}")]


@pytest.fixture(scope="module")
def user(stack: Stack) -> LoggedIn:
    account = {"email": f"{uuid.uuid4()}@example.com", "password": PASSWORD}
    with httpx.Client(base_url=stack.edge_url, timeout=10) as client:
        client.post("/api/v1/users", json={**account, "displayName": "Ada"}).raise_for_status()
        session = client.post("/api/v1/sessions", json=account).raise_for_status().json()
    return LoggedIn(session["userId"], session["accessToken"])


@contextmanager
def channel_to(stack: Stack, service: str, *, with_files: Path, expecting: str = "") -> Iterator[grpc.Channel]:
    """A channel past the edge, as the process that these files belong to would have it."""
    ca, key, certificate = ((with_files / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    name = (expecting or service).replace("_", "-")
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    options = [("grpc.default_authority", name), ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    with grpc.secure_channel(stack.replicas(service)[0].address, credentials, options) as channel:
        yield channel


def files_of(stack: Stack, name: str) -> Path:
    return stack.certificates.folder_of(name).path


def check_health(channel: grpc.Channel) -> Any:
    return next(iter(_health(channel, "Check", channel.unary_unary)))


def watch_health(channel: grpc.Channel) -> Any:
    return next(iter(_health(channel, "Watch", channel.unary_stream)))


def _health(channel: grpc.Channel, name: str, kind: Any) -> Any:
    method = kind(
        f"/grpc.health.v1.Health/{name}",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = method(health_pb2.HealthCheckRequest(), timeout=5)
    return [answer] if name == "Check" else answer


def reflect(channel: grpc.Channel) -> Any:
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    return next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([question]), timeout=5))


def get_health(channel: grpc.Channel) -> Any:
    return SystemServiceStub(channel).GetHealth(GetHealthRequest(), timeout=5)


def get_jwks(channel: grpc.Channel) -> Any:
    return SessionServiceStub(channel).GetJwks(session_pb.GetJwksRequest(), timeout=5)


def batch_get_users(channel: grpc.Channel) -> Any:
    return UserServiceStub(channel).BatchGetUsers(user_pb.BatchGetUsersRequest(ids=[str(uuid.uuid4())]), timeout=5)


def list_orders(channel: grpc.Channel) -> Any:
    return OrderServiceStub(channel).ListOrders(order_pb.ListOrdersRequest(), timeout=5)


def failure_of(call: Callable[[grpc.Channel], Any], channel: grpc.Channel) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as failed:
        call(channel)
    return failed.value.code(), reason_of(failed.value)


REFUSED = (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
NO_HANDSHAKE = (grpc.StatusCode.UNAVAILABLE, "")


@pytest.mark.parametrize("service", SERVICES)
def test_an_expected_peer_is_admitted(stack: Stack, service: str) -> None:
    with channel_to(stack, service, with_files=files_of(stack, "edge")) as channel:
        assert check_health(channel).status == health_pb2.HealthCheckResponse.SERVING
        assert watch_health(channel).status == health_pb2.HealthCheckResponse.SERVING
        assert reflect(channel).list_services_response.service
        assert get_health(channel)


@pytest.mark.parametrize("call", [get_jwks, get_health, batch_get_users, check_health, watch_health, reflect])
def test_a_stranger_with_a_certificate_of_our_ca_may_call_nothing(
    stack: Stack, stranger: Path, call: Callable[[grpc.Channel], Any]
) -> None:
    with channel_to(stack, "user_svc", with_files=stranger) as channel:
        assert failure_of(call, channel) == REFUSED


@pytest.mark.parametrize("call", [list_orders, get_health, check_health, watch_health, reflect])
def test_the_order_service_may_not_call_itself(stack: Stack, call: Callable[[grpc.Channel], Any]) -> None:
    with channel_to(stack, "order_svc", with_files=files_of(stack, "order_svc")) as channel:
        assert failure_of(call, channel) == REFUSED


def test_the_public_certificate_of_the_edge_opens_no_connection_inside(stack: Stack) -> None:
    # It is no client's: TLS itself refuses it.
    with channel_to(stack, "user_svc", with_files=files_of(stack, "localhost")) as channel:
        assert failure_of(get_jwks, channel) == NO_HANDSHAKE


@pytest.mark.parametrize("service", SERVICES)
def test_without_a_certificate_there_is_no_connection(stack: Stack, service: str) -> None:
    credentials = grpc.ssl_channel_credentials(stack.certificates.authority.read_bytes())
    options = [("grpc.default_authority", service.replace("_", "-"))]

    with grpc.secure_channel(stack.replicas(service)[0].address, credentials, options) as channel:
        assert failure_of(get_health, channel) == NO_HANDSHAKE


def test_a_certificate_of_another_ca_gives_no_connection(stack: Stack, tmp_path: Path) -> None:
    theirs = Certificates(tmp_path / "theirs")
    theirs.prepare()
    edge = theirs.folder_of("edge").path
    # So that it is the server that refuses: the client trusts ours.
    (edge / "ca.crt").write_bytes(stack.certificates.authority.read_bytes())

    with channel_to(stack, "user_svc", with_files=edge) as channel:
        assert failure_of(get_jwks, channel) == NO_HANDSHAKE


@pytest.mark.parametrize("service", SERVICES)
def test_clear_text_gives_no_connection(stack: Stack, service: str) -> None:
    with grpc.insecure_channel(stack.replicas(service)[0].address) as channel:
        assert failure_of(get_health, channel) == NO_HANDSHAKE


def test_a_client_refuses_a_server_with_another_name(stack: Stack) -> None:
    with channel_to(stack, "user_svc", with_files=files_of(stack, "edge"), expecting="example_svc") as channel:
        assert failure_of(get_health, channel) == NO_HANDSHAKE


def test_the_edge_refuses_an_upstream_with_another_services_certificate(stack: Stack, tmp_path: Path) -> None:
    ports = [stack.replicas(name)[0].port for name in SERVICES]
    swapped = laptop(
        port=free_port(),
        admin_port=free_port(),
        keys_port=free_port(),
        service_ports={name: [port] for name, port in zip(SERVICES, [*ports[1:], ports[0]], strict=True)},
    )
    edge = replace(swapped, inside=stack.certificates.folder_of("edge"), secrets_folder=tmp_path)
    for name, secret in render_secrets(edge).items():
        (tmp_path / name).write_text(secret)
    (tmp_path / "edge.yaml").write_text(render(edge))
    command = [find_envoy(), "--config-path", tmp_path / "edge.yaml", "--disable-hot-restart", "--log-level", "error"]

    def refused() -> bool:
        try:
            stats = httpx.get(f"http://{LOOPBACK}:{edge.admin_port}/stats?filter=fail_verify_san").text
        except httpx.TransportError:
            return False
        counts = [int(line.rpartition(" ")[2]) for line in stats.splitlines()]
        # The order service's streams have a cluster of their own.
        return len(counts) > len(SERVICES) and all(counts)

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as envoy:
        try:
            until(refused)
        finally:
            envoy.terminate()


def test_the_certificate_of_the_order_service_identifies_a_caller_and_the_edges_does_not(stack: Stack) -> None:
    with channel_to(stack, "user_svc", with_files=files_of(stack, "order_svc")) as channel:
        assert batch_get_users(channel).missing_ids
    with channel_to(stack, "user_svc", with_files=files_of(stack, "edge")) as channel:
        assert failure_of(batch_get_users, channel) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


@pytest.mark.parametrize(
    ("port", "code", "complaint"),
    [
        ("", 1, "HEALTH_PORT is 0: there is nothing to ask.\n"),
        ("1", 1, "No answer on 1: UNAVAILABLE.\n"),
        ("theirs", 0, ""),
    ],
)
def test_the_images_probe_reports_serving_no_answer_and_a_missing_port(
    stack: Stack, health_port: int, port: str, code: int, complaint: str
) -> None:
    environment = {"HEALTH_PORT": {"theirs": str(health_port), "": "0"}.get(port, port)}

    done = subprocess.run(
        [sys.executable, "-m", "chassis.runtime.probe"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (code, complaint)


def test_the_port_for_probes_serves_health_and_nothing_else(stack: Stack, health_port: int) -> None:
    with grpc.insecure_channel(f"{LOOPBACK}:{health_port}") as channel:
        assert check_health(channel).status == health_pb2.HealthCheckResponse.SERVING
        for call in (get_jwks, get_health, reflect):
            assert failure_of(call, channel)[0] is grpc.StatusCode.UNIMPLEMENTED


def edge_handshake(stack: Stack, context: ssl.SSLContext) -> ssl.SSLSocket:
    return handshake(int(stack.edge_tls_url.rpartition(":")[2]), context)


def handshake(port: int, context: ssl.SSLContext, *, name: str = "localhost") -> ssl.SSLSocket:
    with socket.create_connection((LOOPBACK, port), timeout=5) as plain:
        return context.wrap_socket(plain, server_hostname=name)


def trusting(stack: Stack) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=stack.certificates.authority)


def as_edge(stack: Stack) -> ssl.SSLContext:
    context = trusting(stack)
    context.load_cert_chain(files_of(stack, "edge") / "tls.crt", files_of(stack, "edge") / "tls.key")
    context.set_alpn_protocols(["h2"])
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_the_edge_speaks_tls_1_2_and_1_3_with_both_http_versions(
    stack: Stack, version: ssl.TLSVersion, protocol: str
) -> None:
    context = trusting(stack)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols([protocol])

    with edge_handshake(stack, context) as connection:
        assert connection.selected_alpn_protocol() == protocol


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_edge_refuses_tls_1_1(stack: Stack) -> None:
    context = trusting(stack)
    context.set_ciphers("ALL:@SECLEVEL=0")  # or our own side would refuse first
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises(ssl.SSLError) as refused:
        edge_handshake(stack, context)

    assert refused.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_service_refuses_what_is_older_than_tls_1_2(stack: Stack) -> None:
    context = as_edge(stack)
    context.set_ciphers("ALL:@SECLEVEL=0")
    port = stack.replicas("user_svc")[0].port

    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    handshake(port, context, name="user-svc").close()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises(ssl.SSLError):  # gRPC hangs up without an alert
        handshake(port, context, name="user-svc")


def test_the_tls_port_refuses_clear_text(stack: Stack) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(stack.edge_tls_url.replace("https", "http") + "/healthz")


@dataclass
class Load:
    """Calls at a steady pace from a few threads."""

    calls: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, makers: dict[str, Callable[[], str]], *, pause_s: float) -> Iterator[None]:
        """Make each of these calls again and again; each returns what was wrong, or nothing."""
        over = threading.Event()
        self.calls = dict.fromkeys(makers, 0)

        def repeat(name: str, call: Callable[[], str]) -> None:
            while not over.wait(pause_s):
                try:
                    wrong = call()
                except Exception as error:  # noqa: BLE001  whatever it is, it is a failed call
                    wrong = repr(error)
                self.calls[name] += 1
                if wrong:
                    self.failures.append(f"{name}: {wrong}")

        threads = [threading.Thread(target=repeat, args=each) for each in makers.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def has_made_five_more_of_each(self) -> Callable[[], bool]:
        """Return the condition that each call was made five times more than now."""
        least = {name: calls + 5 for name, calls in self.calls.items()}
        return lambda: all(self.calls[name] >= calls for name, calls in least.items())


def serial_at_the_edge(stack: Stack) -> int:
    with edge_handshake(stack, trusting(stack)) as connection:
        return serial_of(ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b""))


def serial_of(pem: str) -> int:
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serial_at_the_service(stack: Stack, service: str) -> int:
    port, name = stack.replicas(service)[0].port, service.replace("_", "-")
    with handshake(port, as_edge(stack), name=name) as connection:
        return serial_of(ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b""))


def renewed_channels(stack: Stack) -> int:
    log = stack.home.logs / "order_svc-1.log"
    return sum('"tls.channel_renewed"' in line for line in log.read_text().splitlines())


def edge_client_serials(stack: Stack) -> set[int]:
    """The serial numbers of the certificates that Envoy holds right now."""
    listed = httpx.get(f"{stack.edge.admin_url}/certs").json()["certificates"]
    return {int(chain["serial_number"], 16) for each in listed for chain in each.get("cert_chain", [])}


def is_taken_over(stack: Stack, *, channels: int) -> bool:
    """Whether every process uses what is in its files now, and the order service has connected anew."""
    newest = {name: serial_of((files_of(stack, name) / "tls.crt").read_text()) for name in ("localhost", "edge")}
    return (
        set(newest.values()) <= edge_client_serials(stack)
        and serial_at_the_edge(stack) == newest["localhost"]
        and all(
            serial_at_the_service(stack, name) == serial_of((files_of(stack, name) / "tls.crt").read_text())
            for name in SERVICES
        )
        and renewed_channels(stack) >= channels
    )


def test_ten_rotations_under_load_fail_no_call(
    stack: Stack, user: LoggedIn, record_property: Callable[[str, object], None]
) -> None:
    load = Load()
    renewed = renewed_channels(stack)
    headers = {"authorization": f"Bearer {user.token}"}
    price = Money(currency_code="EUR", units=1)
    item = order_pb.CreateOrderItem(product_id="tea", name="Tea", quantity=1, unit_price=price)

    def place_order(orders: Any) -> str:
        order = orders.CreateOrder(
            order_pb.CreateOrderRequest(currency_code="EUR", items=[item]), timeout=5, metadata=user.metadata
        )
        return "" if order.user_id == user.id else f"somebody else's: {order}"

    def get_user(client: httpx.Client) -> str:
        response = client.get(f"/api/v1/users/{user.id}", headers=headers)
        return "" if response.status_code == 200 else f"{response.status_code} {response.text}"

    def get_user_anew() -> str:
        with httpx.Client(base_url=stack.edge_tls_url, verify=trusting(stack), timeout=5) as fresh:
            return get_user(fresh)

    with (
        httpx.Client(base_url=stack.edge_url, timeout=5) as plain,
        httpx.Client(base_url=stack.edge_tls_url, verify=trusting(stack), timeout=5) as encrypted,
        grpc.insecure_channel(stack.edge_url.removeprefix("http://")) as channel,
        load.of(
            {
                "order to user": lambda: place_order(OrderServiceStub(channel)),
                "plain": lambda: get_user(plain),
                "TLS": lambda: get_user(encrypted),
                "TLS, new connection each": get_user_anew,
            },
            pause_s=0.005,
        ),
    ):
        for rotation in range(1, 11):
            stack.certificates.rotate()
            until(lambda: is_taken_over(stack, channels=renewed + rotation))  # noqa: B023  used at once
            until(load.has_made_five_more_of_each())

    record_property("calls", json.dumps(load.calls))
    assert load.failures == []


def test_a_service_that_starts_after_a_rotation_can_call_and_be_called(stack: Stack, user: LoggedIn) -> None:
    stack.certificates.rotate()
    for service in SERVICES:
        replica = stack.replicas(service)[0]
        replica.kill()
        replica.wait_ready()

    def is_back() -> bool:
        answers = (
            httpx.get(f"{stack.edge_url}{path}", headers={"authorization": f"Bearer {user.token}"})
            for path in (f"/api/v1/users/{user.id}", "/api/v1/orders")
        )
        return all(answer.status_code == 200 for answer in answers)

    until(is_back)
