"""Users to test with, and a request that succeeds for every method of the contract."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import psycopg
from shop.system.v1 import system_service_pb2 as system
from shop.user.v1 import user_service_pb2 as users
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.service import service_of, services
from chassis.testing import new_uuid
from devstack.process import stop_together
from tests.e2e.callers import CLEAR_TEXT
from tests.e2e.contract import BY_NAME, as_json
from tests.support.guards import modules
from tests.support.logins import log_in
from tests.support.requests import PASSWORD, create_user_request
from tests.support.standard_requests import example_request, make_unique, verb_and_resource
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.protobuf.message import Message
    from shop.user.v1.user_pb2 import User

    from devstack.stack import Stack
    from tests.e2e.callers import Edge, Outcome
    from tests.e2e.contract import Rpc


_NUMBERS: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class World:
    """A running system, with users and temporary faults."""

    stack: Stack
    edge: Edge

    def owner(self) -> str:
        """Return the id of a user whose own token is used for calls that only the user may make."""
        user = self.user()
        self.edge.owners[user.id] = self.token_of(user)
        return user.id

    def user(self, **changes: Any) -> User:
        """Create a user."""
        return UserServiceStub(self.edge.channel).CreateUser(create_user_request(**changes), timeout=10)

    def deleted_user(self) -> str:
        """Return the id of a user who was deleted."""
        user = self.user()
        UserServiceStub(self.edge.channel).DeleteUser(users.DeleteUserRequest(id=user.id), timeout=10)
        return user.id

    def request(self, name: str) -> Message:
        """Return a request that the method of this name answers with success, once."""
        make = REQUESTS.get(name)
        return make(self) if make else self._standard_request(BY_NAME[name])

    def _standard_request(self, rpc: Rpc) -> Message:
        """Return a request to create, read, change, delete or list resources, made of the contract's examples."""
        assert is_standard(rpc), write_a_request(rpc)
        example = example_request(rpc.request)
        request: Any = example
        verb, resource = verb_and_resource(rpc.name)
        if verb in {"Get", "Update", "Delete"}:
            create = BY_NAME[f"Create{resource}"]
            made = self.edge.grpc(create, self.request(create.name))
            assert not made.is_refusal, made
            request.id = made.body["id"]
            if "etag" in rpc.request.DESCRIPTOR.fields_by_name:
                request.etag = made.body["etag"]
        elif verb == "Create":
            make_unique(request, next(_NUMBERS))
        if rpc.has_request_id:
            request.request_id = new_uuid()
        return example

    def both(self, name: str, request: Message) -> list[Outcome]:
        """Return what the method answers over REST, then over gRPC."""
        rpc = BY_NAME[name]
        by_rest = self.edge.rest(rpc.bindings[0].call(_brief(request)))
        return [by_rest, self.edge.grpc(rpc, request)]

    def token_of(self, user: User) -> str:
        """Return an access token of a user that this world has made."""
        return log_in(self.edge.url, email=user.email, password=PASSWORD)["accessToken"]

    def user_with_roles(self, names: str) -> User:
        """Create a user with these roles, separated by commas. No rpc can; an operator does it so."""
        user = self.user()
        with self.database_of("user_svc") as connection:
            connection.execute("UPDATE users SET roles = string_to_array(%s, ',') WHERE id = %s", (names, user.id))
        return user

    def expire_sessions(self) -> None:
        """Expire every session."""
        with self.database_of("user_svc") as connection:
            connection.execute("UPDATE sessions SET expires_at = now()")

    @contextlib.contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Lock the table of the user service while the block runs."""
        with self.database_of("user_svc") as connection, connection.transaction():
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            yield

    @contextlib.contextmanager
    def missing(self, table: str) -> Iterator[None]:
        """Rename the table of the user service while the block runs."""
        with self.database_of("user_svc") as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO {table}_away".encode())
            try:
                yield
            finally:
                connection.execute(f"ALTER TABLE {table}_away RENAME TO {table}".encode())

    @contextlib.contextmanager
    def stopped(self, service: str) -> Iterator[None]:
        """Stop every replica of the service while the block runs."""
        replicas = self.stack.replicas(service)
        stop_together(list(replicas))
        try:
            yield
        finally:
            # Wait until the edge marks the replicas as unhealthy: a late mark would follow the repair.
            until(lambda: not self._edge_is_healthy())
            for replica in replicas:
                replica.start()
            for replica in replicas:
                replica.wait_ready()
            until(self._edge_is_healthy)
            until(self._edge_reaches_every_replica)
            until(lambda: all(each.has_recovered(self.stack) for each in modules("recovery")))

    def rows_in_the_log_of_postgresql(self) -> list[str]:
        """Return the lines of PostgreSQL's own log that quote a row, as for a constraint that refused it."""
        log = self.stack.home.logs / "postgres.log"
        return [line for line in log.read_text().splitlines() if "DETAIL:" in line] if log.exists() else []

    def _edge_is_healthy(self) -> bool:
        return self.edge.http.get("/healthz").is_success

    def _edge_reaches_every_replica(self) -> bool:
        """Return whether call after call is answered, each on its own connection, by each of the edge's threads."""
        paths = [service.health_path for service in services()] * 5
        return all(
            httpx.get(f"{self.edge.url}{path}", timeout=10, trust_env=False, verify=CLEAR_TEXT).is_success
            for path in paths
        )

    def database_of(self, service: str) -> contextlib.closing[psycopg.Connection[Any]]:
        """Return a connection of the superuser to the service's database; each statement is committed at once."""
        assert self.stack.postgres
        url = self.stack.postgres.superuser_url(service_of(service).database)
        return contextlib.closing(psycopg.connect(url, autocommit=True))


def _brief(request: Message) -> dict[str, Any]:
    """Return the request as a caller would write it: without what it does not say."""
    said = {field.json_name for field, _ in request.ListFields()}
    return {name: value for name, value in as_json(request).items() if name in said}


def request_json(request: Message) -> dict[str, Any]:
    """Return the request as a caller would write it in JSON."""
    return _brief(request)


def is_standard(rpc: Rpc) -> bool:
    """Return whether a request can be made of the contract's examples: it names at most a resource that is created."""
    verb, resource = verb_and_resource(rpc.name)
    fields = rpc.request.DESCRIPTOR.fields_by_name
    return verb in {"Create", "List"} or (bool(verb) and f"Create{resource}" in BY_NAME and "id" in fields)


def write_a_request(rpc: Rpc) -> str:
    """Return what to do about a method that is not standard."""
    owner = next((service.name for service in services() if rpc.service in service.serves), "the service")
    return f"{rpc.name}: write a request that succeeds into REQUESTS of tests/services/{owner}/requests.py"


REQUESTS: Final[Mapping[str, Callable[[World], Message]]] = {
    "GetHealth": lambda _world: system.GetHealthRequest(),
    **{name: make for module in modules("requests") for name, make in module.REQUESTS.items()},
}
"""By the name of the method, a request that succeeds, if it cannot be made of the contract's examples."""
