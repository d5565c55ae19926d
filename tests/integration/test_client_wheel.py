"""The wheel, installed into environments that have nothing but its declared dependencies, without and with an extra."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from chassis.service import services
from devstack.settings import REPOSITORY
from protos.package import write_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SERVICES = [service.name for service in services()]
CLIENTS_PAGE = REPOSITORY / "docs" / "clients.md"
APP = Path(__file__).with_name("client_app.py")
IMPORT_ALL = """
import importlib, sys
for name in sys.stdin.read().split():
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name}: {error!r}")
"""
# Another version of the rules, as another package may bring it.
OTHER_RULES = """
from google.protobuf import descriptor_pb2, descriptor_pool
file = descriptor_pb2.FileDescriptorProto(name="buf/validate/validate.proto", package="buf.validate", syntax="proto3")
file.message_type.add(name="FieldRules").field.add(name="other", number=77, type=9, label=1)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
"""
STUBS = """
from shop.order.v1.order_service_pb2 import CreateOrderRequest
from shop.user.v1.user_service_pb2 import CreateUserRequest
options = CreateUserRequest.DESCRIPTOR.fields_by_name["email"].GetOptions().SerializeToString()
assert bytes([0xBA, 0x48]) in options, "the rules, field 1159, are gone"
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    write_wheel(tmp_path_factory.mktemp("sources"), folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def client_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and the packages that it requires."""
    return environment(wheel, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def testing_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and its extra `testing`, and pytest-asyncio."""
    return environment(wheel, tmp_path_factory.mktemp("testing"), extra="testing", more=["pytest-asyncio"])


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of mypy, shared by its runs: most of a run is reading libraries."""
    return tmp_path_factory.mktemp("mypy")


def environment(wheel: Path, folder: Path, *, extra: str = "", more: Iterable[str] = ()) -> Path:
    """Make an environment with the wheel and, copied from ours, the packages that it requires; return its Python."""
    run("-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in sorted({*closure(requirements_of(wheel), extra=extra), *closure(more)}):
        for file in distribution(name).files or ():
            if ".." not in file.parts:
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)
    return python


def run(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], check=True, timeout=100)


def requirements_of(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


def closure(requirements: Iterable[str], *, extra: str = "") -> Iterator[str]:
    """Yield the names of the required packages and of all that those require."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement.name
            required = distribution(requirement.name).requires or []
            for each in requirement.extras or {""}:
                yield from closure(required, extra=each)


def modules_of(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        files = [Path(name) for name in archive.namelist() if name.endswith(".py")]
    return sorted({".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files})


def run_client(python: Path, script: str, *, stdin: str = "") -> str:
    done = subprocess.run(
        [python, "-I", "-W", "error", "-c", script],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Packages that need the extra `testing`.
OF_THE_SERVER = ("shop._buf", "shop._chassis", "shop.testing", *(f"shop._{name}" for name in SERVICES))


def test_every_module_of_a_client_can_be_imported_with_its_dependencies_alone(wheel: Path, client_python: Path) -> None:
    modules = [each for each in modules_of(wheel) if not each.startswith(OF_THE_SERVER)]
    assert {"shop.client", "shop.client.watching", "shop.order.v1.order_service_pb2_grpc"} <= set(modules)

    assert run_client(client_python, IMPORT_ALL, stdin="\n".join(modules)) == ""


def test_every_module_of_the_wheel_can_be_imported_with_its_extra(wheel: Path, testing_python: Path) -> None:
    modules = modules_of(wheel)
    assert {"shop.testing.server", "shop._chassis.server.method_wrapper"} <= set(modules)

    assert run_client(testing_python, IMPORT_ALL, stdin="\n".join(modules)) == ""


def test_the_server_for_tests_needs_no_driver_and_no_telemetry(testing_python: Path) -> None:
    heavy = ("sqlalchemy", "psycopg", "alembic", "redis", "opentelemetry", "prometheus_client", "pydantic", "structlog")
    script = f"import sys, shop.testing; print([name for name in {heavy} if name in sys.modules])"

    assert run_client(testing_python, script) == "[]\n"


def test_the_server_for_tests_serves_every_service(testing_python: Path) -> None:
    script = "from shop.testing import ShopServer\nwith ShopServer() as server: print(*sorted(server.served))"
    served = {"shop.system.v1.SystemService", *(name for service in services() for name in service.serves)}

    assert run_client(testing_python, script).split() == sorted(served)


APP_TESTS = """
import grpc
import pytest
from shop.client import ShopError, money
from shop.order.v1.order_service_pb2 import CreateOrderItem, CreateOrderRequest
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.testing import ShopServer

from app import all_orders_async, place, total


def test_an_order_is_placed(shop_server: ShopServer) -> None:
    with shop_server.connect_sync(shop_server.create_user()) as channel:
        assert total(place(OrderServiceStub(channel), "tea", "4.50")) == 4.5


async def test_all_orders_are_found(shop_server: ShopServer) -> None:
    ada = shop_server.create_user()
    with shop_server.connect_sync(ada) as channel:
        placed = [place(OrderServiceStub(channel), "tea", "1").id for _ in range(60)]
    async with shop_server.connect(ada) as aio_channel:
        found = await all_orders_async(OrderServiceStub(aio_channel))
    assert sorted(order.id for order in found) == sorted(placed)


def test_a_refusal_comes_with_its_facts(shop_server: ShopServer) -> None:
    ada = shop_server.create_user()
    shop_server.refuse("USER_NOT_ACTIVE")
    with shop_server.connect_sync(ada) as channel:
        with pytest.raises(ShopError) as refused:
            place(OrderServiceStub(channel), "tea", "1")
        place(OrderServiceStub(channel), "tea", "1")
    error = refused.value
    assert (error.domain, error.reason, error.metadata) == ("shop.order.v1", "USER_NOT_ACTIVE", {"userId": ada.id})
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION


def test_the_rules_hold(shop_server: ShopServer) -> None:
    with shop_server.connect_sync(shop_server.create_user()) as channel:
        with pytest.raises(ShopError) as refused:
            place(OrderServiceStub(channel), " ", "1.001")
    assert [each.field for each in refused.value.fields] == ["items[0].productId"]
"""


def test_an_app_tests_itself_with_the_plugin(testing_python: Path, checked: Path, tmp_path: Path) -> None:
    shutil.copy(APP, tmp_path / "app.py")
    (tmp_path / "test_app.py").write_text(APP_TESTS)

    options = ["asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function"]
    # Without capture, so that what the loops of grpc.aio log is seen.
    command = [testing_python, "-m", "pytest", "-q", "-s", "-p", "no:logging", "-W", "error"]
    command += [f"-o{each}" for each in options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)

    assert "4 passed" in done.stdout, done.stdout + done.stderr
    # Two loops with calls of grpc.aio share its events; what one of them does not find is no error.
    assert "BlockingIOError" not in done.stdout + done.stderr
    assert mypy(testing_python, tmp_path, checked) == "Success: no issues found in 2 source files\n"


def test_the_code_of_the_documentation_runs(testing_python: Path, checked: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n# Module (\w+)\n(.*?)```", CLIENTS_PAGE.read_text(), re.DOTALL)
    assert len(blocks) == CLIENTS_PAGE.read_text().count("```python")
    for name, code in blocks:
        (tmp_path / f"{name}.py").write_text(code)

    command = [testing_python, "-m", "pytest", "-q", "-W", "error", "-W", "ignore::pytest.PytestDeprecationWarning"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)

    assert "6 passed" in done.stdout, done.stdout + done.stderr
    assert mypy(testing_python, tmp_path, checked) == f"Success: no issues found in {len(blocks)} source files\n"


def test_pytest_loads_the_plugin_without_the_extra_and_without_cost(client_python: Path) -> None:
    script = f"""
import sys
sys.path.append({str(Path(pytest.__file__).parent.parent)!r})
from importlib.metadata import entry_points
[plugin] = [each.load() for each in entry_points(group="pytest11", name="shop")]
print(plugin.shop_server.name, "grpc" in sys.modules)
"""
    assert run_client(client_python, script) == "shop_server False\n"


def test_everything_in_the_wheel_is_below_shop(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()

    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"shop"}
    assert "shop/py.typed" in names


def test_every_name_that_the_types_declare_exists(wheel: Path, client_python: Path) -> None:
    with ZipFile(wheel) as archive:
        types = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".pyi")}
    declared = [
        f"from {name.removesuffix('.pyi').replace('/', '.')} import {each}"
        for name, source in types.items()
        for each in public_names(source)
    ]
    assert "from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub" in declared

    assert run_client(client_python, "\n".join(declared)) == ""


def public_names(source: str) -> Iterator[str]:
    # Some names exist for type checkers alone: `Role` has the values of the enum, and its type is `Role.ValueType`.
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not is_type_alias(node):
            yield node.target.id


def is_type_alias(node: ast.AnnAssign) -> bool:
    return (
        "TypeAlias" in ast.unparse(node.annotation)
        or not isinstance(node.target, ast.Name)
        or (node.target.id.startswith("_"))
    )


@pytest.mark.parametrize("script", [STUBS + OTHER_RULES, OTHER_RULES + STUBS], ids=["before", "after"])
def test_the_stubs_can_be_imported_beside_another_version_of_the_rules(client_python: Path, script: str) -> None:
    assert run_client(client_python, script) == ""


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_the_stubs_work_with_each_implementation_of_protobuf(client_python: Path, implementation: str) -> None:
    script = f"""
import os
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "{implementation}"
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.internal import api_implementation
from shop.order.v1.order_service_pb2 import CreateOrderRequest
assert api_implementation.Type() == "{implementation}"
copied = DescriptorProto()
CreateOrderRequest.DESCRIPTOR.CopyToProto(copied)
print(copied.name, *[field.name for field in copied.field])
"""
    assert run_client(client_python, script) == "CreateOrderRequest user_id currency_code items request_id\n"


def test_an_app_is_typed_under_mypy_strict_with_what_the_wheel_requires(
    client_python: Path, checked: Path, tmp_path: Path
) -> None:
    shutil.copy(APP, tmp_path / "app.py")
    typed = mypy(client_python, tmp_path, checked)
    (tmp_path / "app.py").write_text(APP.read_text() + "\n\ntotal(Money(units='1'))\n")
    mistaken = mypy(client_python, tmp_path, checked)

    assert typed == "Success: no issues found in 1 source file\n"
    assert mistaken.count("[arg-type]") == 2  # otherwise everything would be Any


def mypy(python: Path, folder: Path, cache: Path) -> str:
    files = sorted(file.name for file in folder.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, "--python-executable", python, *files]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100).stdout
