"""The parts of the server in memory that tests use beside the contract: users, refusals, time."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from shop.user.v1.session_service_pb2 import CreateSessionRequest, RefreshSessionRequest
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2 import DeleteUserRequest, GetUserRequest, ListUsersRequest, UpdateUserRequest
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.service import ROOT, services
from chassis.testing import new_uuid
from protos.client import ShopError
from protos.testing import ShopServer, refusals
from tests.support.own_stubs import OWN_STUBS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def shop() -> Iterator[ShopServer]:
    with ShopServer() as server:
        yield server


def failure(stub: UserServiceStub, user_id: str) -> ShopError:
    with pytest.raises(ShopError) as failed:
        stub.UpdateUser(UpdateUserRequest(id=user_id, display_name="Augusta"))
    return failed.value


def test_it_starts_and_ends_with_less_than_a_tenth_of_a_second_of_cpu() -> None:
    def lifetime_s() -> float:
        began = time.process_time()
        with ShopServer():
            pass
        return time.process_time() - began

    assert statistics.median(lifetime_s() for _ in range(5)) < 0.1


def test_it_serves_every_service_of_the_tree(shop: ShopServer) -> None:
    declared = [name for service in services() for name in service.serves]

    assert sorted(shop.served) == sorted(["shop.system.v1.SystemService", *declared])


@pytest.mark.parametrize("reason", sorted(refusals.reasons()))
def test_the_next_call_fails_with_any_reason_that_a_test_names(shop: ShopServer, reason: str) -> None:
    ada = shop.create_user()
    with shop.connect_sync(ada) as channel:
        stub = UserServiceStub(channel)
        stub.UpdateUser(UpdateUserRequest(id=ada.id, display_name="Augusta"))
        # Not TOKEN_EXPIRED: with that one the channel gets another token and repeats the call.
        shop.refuse(reason, rpc="UpdateUser")
        if reason in {"TOKEN_EXPIRED", "TOKEN_INVALID"}:
            shop.refuse(reason, rpc="UpdateUser")
        error = failure(stub, ada.id)
        stub.UpdateUser(UpdateUserRequest(id=ada.id, display_name="Ada"))

    assert error.reason == reason
    assert error.message
    assert error.code is not grpc.StatusCode.UNKNOWN


def test_a_refusal_waits_for_its_rpc_and_for_a_good_request(shop: ShopServer) -> None:
    ada = shop.create_user()
    with shop.connect_sync(ada) as channel:
        stub = UserServiceStub(channel)
        shop.refuse("OVERLOADED", rpc="UpdateUser")
        stub.GetUser(GetUserRequest(id=ada.id))
        with pytest.raises(ShopError, match="INVALID_FIELDS"):
            stub.UpdateUser(UpdateUserRequest(id="none"))
        failed = failure(stub, ada.id)

    assert (failed.reason, failed.retry_after) == ("OVERLOADED", 1)


def test_a_reason_that_no_service_gives_is_a_mistake(shop: ShopServer) -> None:
    with pytest.raises(ValueError, match=r"no service refuses with NO_TEA: it is one of A\w+, "):
        shop.refuse("NO_TEA")


def test_an_rpc_that_the_contract_does_not_have_is_a_mistake(shop: ShopServer) -> None:
    with pytest.raises(ValueError, match=r"there is no rpc UpdateUsr: it is one of \w+, "):
        shop.refuse("ETAG_MISMATCH", rpc="UpdateUsr")


def test_a_shop_is_used_in_one_block() -> None:
    shop = ShopServer()
    not_served = "does not serve: use it in `with ShopServer"
    with pytest.raises(RuntimeError, match=not_served):
        shop.create_user()
    with shop:
        shop.create_user()

    with pytest.raises(RuntimeError, match=not_served):
        shop.create_user()
    with pytest.raises(RuntimeError, match="has served already: make another one"), shop:
        pass


def test_time_does_not_go_back(shop: ShopServer) -> None:
    with pytest.raises(ValueError, match="time does not go back"):
        shop.clock.advance(timedelta(minutes=-1))


def test_tokens_expire_by_the_clock_and_are_renewed(shop: ShopServer) -> None:
    ada = shop.create_user()
    token = shop.token("USER", subject=ada.id)
    with shop.connect_sync(ada) as own, shop.connect_sync(token=token) as fixed:
        request = GetUserRequest(id=ada.id)
        before = [UserServiceStub(channel).GetUser(request).id for channel in (own, fixed)]
        shop.clock.advance(timedelta(minutes=16))
        with pytest.raises(ShopError, match="TOKEN_EXPIRED"):
            UserServiceStub(fixed).GetUser(request)

        assert before == [ada.id, ada.id]
        assert UserServiceStub(own).GetUser(request).id == ada.id


@pytest.mark.parametrize("expires_in_s", [-0.001, -1, -900])
def test_a_token_whose_time_is_negative_has_expired(shop: ShopServer, expires_in_s: float) -> None:
    token = shop.token("ADMIN", expires_in_s=expires_in_s)
    with shop.connect_sync(token=token) as channel, pytest.raises(ShopError, match="TOKEN_EXPIRED"):
        UserServiceStub(channel).ListUsers(ListUsersRequest())


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda shop: shop.token("FOO"), "there is no role FOO: it is one of USER, SUPPORT, ADMIN, SERVICE"),
        (
            lambda shop: shop.token("USER", "ROLE_ADMIN", "user"),
            "there is no role ROLE_ADMIN, user: it is one of USER,",
        ),
        (lambda shop: shop.create_user(roles=("FOO",)), "there is no role FOO: it is one of USER, SUPPORT, ADMIN"),
        (lambda shop: shop.create_user(roles="USER"), "write roles as a tuple, such as ('USER',), not 'USER'"),
        (
            lambda shop: shop.token("USER", subject="x"),
            "a subject is the id of a user, such as create_user().id, not 'x'",
        ),
    ],
)
def test_a_mistake_in_a_test_is_said(shop: ShopServer, make: Callable[[ShopServer], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        make(shop)


def test_a_suspended_user_cannot_log_in(shop: ShopServer) -> None:
    ada = shop.create_user(email="ada@example.com", password="correct horse battery")
    shop.suspend(ada)
    login = CreateSessionRequest(email=ada.email, password=ada.password)
    with shop.connect_sync() as channel, pytest.raises(ShopError, match="INVALID_CREDENTIALS"):
        SessionServiceStub(channel).CreateSession(login)


def test_users_have_the_roles_that_a_test_gives_them(shop: ShopServer) -> None:
    admin, ada = shop.create_user(roles=("USER", "ADMIN")), shop.create_user()
    with shop.connect_sync(admin) as channel:
        found = UserServiceStub(channel).ListUsers(ListUsersRequest()).users
    with shop.connect_sync(ada) as channel, pytest.raises(ShopError, match="ROLE_REQUIRED"):
        UserServiceStub(channel).ListUsers(ListUsersRequest())

    assert {user.id for user in found} == {admin.id, ada.id}


def test_a_refused_deletion_deletes_nothing(shop: ShopServer) -> None:
    ada = shop.create_user()
    with shop.connect_sync(token=shop.token("ADMIN")) as channel:
        users = UserServiceStub(channel)
        shop.refuse("ETAG_MISMATCH", rpc="DeleteUser")
        with pytest.raises(ShopError, match="ETAG_MISMATCH"):
            users.DeleteUser(DeleteUserRequest(id=ada.id))

        assert users.GetUser(GetUserRequest(id=ada.id)).email == ada.email


def test_a_refresh_that_is_refused_while_the_user_is_suspended_does_not_use_up_the_token(shop: ShopServer) -> None:
    ada = shop.create_user()
    with shop.connect_sync() as channel:
        sessions = SessionServiceStub(channel)
        session = sessions.CreateSession(CreateSessionRequest(email=ada.email, password=ada.password))
        refresh = RefreshSessionRequest(refresh_token=session.refresh_token)
        shop.suspend(ada)
        for _ in range(2):
            with pytest.raises(ShopError, match="TOKEN_INVALID"):
                sessions.RefreshSession(refresh)
            shop.clock.advance(timedelta(seconds=11))


def test_a_shop_whose_tokens_come_from_elsewhere_has_none_of_the_examples(tmp_path: Path) -> None:
    """In a tree without the contracts of the examples and what issues tokens, another service is served."""
    others = [each.name for each in services() if "shop.user.v1.SessionService" not in each.serves]
    kept = {".": ("chassis", "protos/client", "protos/testing", *others), "generated": ("buf", "shop/system")}
    for folder, names in kept.items():
        for name in names:
            shutil.copytree(ROOT / folder / name, tmp_path / folder / name, ignore=shutil.ignore_patterns("*_svc"))
    shutil.copy(ROOT / "protos" / "deprecation.py", tmp_path / "protos")
    notes = tmp_path / "protos" / "testing" / "notes_svc"
    notes.mkdir()
    (notes / "__init__.py").write_text(NOTES)
    support = tmp_path / "tests" / "support" / "notes_svc"
    support.mkdir(parents=True)
    for stub in (ROOT / "tests" / "support" / "notes_svc").glob("notes_pb2*"):
        shutil.copy(stub, support)

    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{tmp_path / 'generated'}"}
    command = [sys.executable, "-P", "-W", "error", "-c", OWN_STUBS + WITHOUT_USERS]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr.splitlines() == [
        "served: notes.v1.NoteService shop.system.v1.SystemService",
        "ADMIN: 0 notes",
        "USER: ROLE_REQUIRED",
        "no service of this shop keeps users: make callers with token() instead",
    ]


NOTES = """
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceServicer, add_NoteServiceServicer_to_server


class Notes(NoteServiceServicer):
    async def FindNotes(self, request, context):
        return pb.FindNotesResponse()


def serve(shop):
    shop.serve(add_NoteServiceServicer_to_server, Notes())
"""
# The server writes log lines to stdout.
WITHOUT_USERS = """
import functools
from protos.client import ShopError
from protos.testing import ShopServer
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub

print = functools.partial(print, file=sys.stderr)
with ShopServer() as server:
    print("served:", *sorted(server.served))
    for role in ("ADMIN", "USER"):
        with server.connect_sync(token=server.token(role)) as channel:
            try:
                found = NoteServiceStub(channel).FindNotes(pb.FindNotesRequest(ids=[]))
                print(f"{role}: {len(found.ids)} notes")
            except ShopError as error:
                print(f"{role}: {error.reason}")
    try:
        server.create_user()
    except LookupError as error:
        print(error)
"""


def test_two_servers_know_nothing_of_each_other(shop: ShopServer) -> None:
    with ShopServer() as other:
        user = shop.create_user()
        with (
            other.connect_sync(token=other.token("ADMIN")) as channel,
            pytest.raises(ShopError, match="USER_NOT_FOUND"),
        ):
            UserServiceStub(channel).GetUser(GetUserRequest(id=user.id))
        with other.connect_sync(token=shop.token("ADMIN")) as channel, pytest.raises(ShopError, match="TOKEN_INVALID"):
            UserServiceStub(channel).GetUser(GetUserRequest(id=new_uuid()))
