"""One definition of a request: path, verb, query and body mean the same to every filter of the edge and to the service.

Each way to write a request that is not the contract's is refused for what is wrong with it, or it is treated as the
plain form is: counted in the same bucket, asked for a token alike, its body looked at alike, done alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.e2e.contract import BINDINGS, RPCS, Binding, Rpc, name_of
from tests.e2e.variations import Heard, Sent, Wire, as_grpc, grpc_variations, is_in_the_contract, plain, variations
from tests.e2e.world import request_json

if TYPE_CHECKING:
    from tests.e2e.world import World

REFUSED: Final = {"ROUTE_NOT_FOUND", "MALFORMED_REQUEST", "UNSUPPORTED_MEDIA_TYPE", "INVALID_FIELDS"}
UNARY: Final = [rpc for rpc in RPCS if not rpc.is_stream]


class Differences:
    """How a binding's variations are treated, compared with its plain form."""

    def __init__(self, world: World, binding: Binding, wire: Wire) -> None:
        self._world = world
        self._binding = binding
        self._wire = wire

    def found(self) -> list[str]:
        """Return the variations that are neither refused nor treated as the plain form."""
        sent = self._fresh()
        heard = self._wire.ask(sent)
        assert heard.is_success, heard
        assert not list(self._complaints(sent, heard, like=heard)), "the plain form is treated as it should be"
        complaints = []
        sent = self._fresh()
        for name in [name for name, _ in variations(sent)]:
            varied = dict(variations(sent))[name]
            is_another = (varied.verb, varied.path) != (sent.verb, sent.path)
            if is_another and is_in_the_contract(varied.verb, varied.path):
                continue
            try:
                answer = self._wire.ask(varied)
            except ConnectionError:
                continue  # not even an answer
            complaints += [f"{name}: {each}" for each in self._complaints(varied, answer, like=heard)]
            if answer.is_success:
                sent = self._fresh()
        return complaints

    def _fresh(self) -> Sent:
        """Return a request with new ids."""
        request = request_json(self._world.request(self._binding.rpc.name))
        path = self._binding.call(request).path
        token = self._world.edge.as_owner(path).get("authorization", "").removeprefix("Bearer ")
        return plain(self._binding, request, token=token or self._world.edge.token)

    def _complaints(self, sent: Sent, heard: Heard, *, like: Heard) -> list[str]:
        if not heard.is_success:
            return [] if sent.verb == "HEAD" or heard.reason in REFUSED else [f"refused as {heard.reason}"]
        complaints = []
        if heard.status != like.status or _shape(heard) != _shape(like):
            complaints.append(f"answered {heard.status} {heard.body[:80]!r}")
        if heard.headers.get("x-ratelimit-limit") != like.headers.get("x-ratelimit-limit"):
            complaints.append(f"counted as one of {heard.headers.get('x-ratelimit-limit')}")
        if not self._binding.rpc.is_public and self._wire.ask(_without_token(sent)).status != 401:
            complaints.append("done without a token")
        if sent.body is not None and self._binding.has_body:
            if self._wire.ask(sent.with_header("content-type", "text/plain")).is_success:
                complaints.append("done as text")
            unknown = (sent.body or b"{}").rstrip()[:-1] + b', "nope": 1}'
            if self._wire.ask(replace(sent, body=unknown)).is_success:
                complaints.append("done with an unknown field")
        if not self._binding.has_body and sent.body:
            complaints.append("done with a body that nobody looks at")
        return complaints


def _without_token(sent: Sent) -> Sent:
    return replace(sent, headers=tuple(each for each in sent.headers if each[0] != "authorization"))


def _shape(heard: Heard) -> Any:
    return sorted(heard.json) if heard.body else heard.headers.get("content-type")


@pytest.mark.parametrize("binding", BINDINGS, ids=name_of)
def test_a_variation_of_a_request_is_refused_or_means_the_plain_form(world: World, binding: Binding) -> None:
    with Wire(world.edge.url) as wire:
        complaints = Differences(world, binding, wire).found()

    assert not complaints, "\n".join(complaints)


def grpc_differences(world: World, rpc: Rpc, wire: Wire) -> list[str]:
    """Return the variations of a gRPC call that are neither refused nor treated as its plain form."""

    def fresh() -> Sent:
        request = world.request(rpc.name)
        owner = world.edge.as_owner(f"{getattr(request, 'id', '')}:{rpc.name}")
        token = owner.get("authorization", "").removeprefix("Bearer ") or world.edge.token
        return as_grpc(rpc.path, request.SerializeToString(), token=token)

    like = wire.ask(fresh())
    assert like.is_success, like
    complaints = []
    for name, varied in grpc_variations(fresh()):
        heard = wire.ask(varied)
        if heard.is_success and heard.headers.get("x-ratelimit-limit") != like.headers.get("x-ratelimit-limit"):
            complaints.append(f"{name}: counted as one of {heard.headers.get('x-ratelimit-limit')}")
        if heard.is_success and not rpc.is_public and wire.ask(_without_token(varied)).is_success:
            complaints.append(f"{name}: done without a token")
        if not heard.is_success and heard.reason not in REFUSED:
            complaints.append(f"{name}: refused as {heard.reason}: {heard.headers.get('grpc-message')}")
    return complaints


@pytest.mark.parametrize("rpc", UNARY, ids=name_of)
def test_a_grpc_call_is_its_plain_form_or_refused(world: World, rpc: Rpc) -> None:
    with Wire(world.edge.url) as wire:
        complaints = grpc_differences(world, rpc, wire)

    assert not complaints, "\n".join(complaints)
