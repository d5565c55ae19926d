"""Access at the edge: every rpc by every kind of caller, over REST and over gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc
import httpx
import pytest
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub

from tests.e2e.callers import Edge, ask, require_clean
from tests.e2e.contract import BY_NAME, RPCS, name_of
from tests.e2e.world import request_json
from tests.support.access_table import CALLERS, MADE_FOR, NOTHING, REQUESTS, Subject, expected
from tests.support.requests import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from tests.e2e.callers import Outcome
    from tests.e2e.contract import Binding, Rpc
    from tests.e2e.world import World

    Tokens = dict[str, str]


@dataclass(frozen=True, slots=True)
class Doors:
    """The two doors, with no token but the one that a call names."""

    edge: Edge
    http: httpx.Client

    def knock(self, door: str, rpc: Rpc, request: Message, *, token: str) -> Outcome:
        if door == "REST":
            call = _binding_for(request, rpc).call(request_json(request))
            headers = {"authorization": f"Bearer {token}"} if token else {}
            return ask(self.http, call, headers=headers)
        return self.edge.grpc(rpc, request, metadata=(("authorization", f"Bearer {token}"),) if token else ())


def _binding_for(request: Message, rpc: Rpc) -> Binding:
    """Return the first binding, and for a request with a secret the first with a body: a query is written to logs."""
    has_secret = any(field.GetOptions().debug_redact for field, _ in request.ListFields())
    return next(each for each in rpc.bindings if each.has_body or not has_secret)


@pytest.fixture(scope="module")
def doors(edge: Edge) -> Iterator[Doors]:
    nobody = Edge(edge.url, "")
    nobody.channel = grpc.insecure_channel(edge.authority, [("grpc.enable_http_proxy", 0)])
    with httpx.Client(base_url=edge.url, timeout=30, trust_env=False) as http, nobody:
        yield Doors(nobody, http)


@pytest.fixture(scope="module")
def staff(world: World) -> Tokens:
    """Tokens of every kind of caller but the owner and the anonymous one."""
    roles = {"other": "USER", "support": "USER,SUPPORT", "admin": "USER,ADMIN", "service": "SERVICE"}
    return {caller: world.token_of(world.user_with_roles(names)) for caller, names in roles.items()}


def new_subject(world: World) -> Subject:
    owner = world.user()
    login = sessions_pb.CreateSessionRequest(email=owner.email, password=PASSWORD)
    session = SessionServiceStub(world.edge.channel).CreateSession(login, timeout=10)
    owned = {method: made(world, method, make(owner)) for method, make in MADE_FOR.items()}
    return Subject(owner, cast("sessions_pb.Session", session), owned)


def made(world: World, method: str, request: Message) -> Message:
    rpc = BY_NAME[method.rpartition(".")[2]]
    answer = world.edge.channel.unary_unary(rpc.path)(request.SerializeToString(), timeout=10)
    return rpc.reply.FromString(answer)


@pytest.mark.parametrize("rpc", RPCS, ids=name_of)
def test_rest_and_grpc_admit_the_callers_of_the_contract(world: World, doors: Doors, staff: Tokens, rpc: Rpc) -> None:
    method = f"{rpc.service}.{rpc.name}"
    of_subject = REQUESTS.get(method)
    outcomes: dict[tuple[str, str], str] = {}

    for caller in CALLERS:
        for door in ("REST", "gRPC"):
            subject = new_subject(world)
            tokens = {"anonymous": "", "owner": subject.session.access_token, **staff}
            request = of_subject(subject) if of_subject else world.request(rpc.name)
            outcome = doors.knock(door, rpc, request, token=tokens[caller])
            outcomes[caller, door] = _seen(outcome, expects_nothing=expected(method, caller) == NOTHING)

    assert outcomes == {(caller, door): expected(method, caller) for caller, door in outcomes}
    assert len(outcomes) == 12


def _seen(outcome: Outcome, *, expects_nothing: bool) -> str:
    if outcome.is_refusal:
        require_clean(outcome)
        return outcome.reason[1]
    says = {**outcome.body, "resumeToken": None}  # a heartbeat has it too
    return NOTHING if expects_nothing and not any(says.values()) else "OK"
