"""`make breaking`: what was deprecated may be removed after its sunset, and nothing else may be."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

PAST = '{since: "2020-01-01" sunset: "2021-01-01" replacement: "Use GetGame."}'
AHEAD = '{since: "2020-01-01" sunset: "2999-01-01" replacement: "Use GetGame."}'
UNDECIDED = '{since: "2020-01-01" replacement: "Use GetGame."}'


def rpc_until(dates: str) -> str:
    return f"option deprecated = true; option (shop.system.v1.method_deprecation) = {dates};"


def enum_until(dates: str) -> str:
    return f"option deprecated = true; option (shop.system.v1.enum_deprecation) = {dates};"


def until(dates: str, *, of: str = "field") -> str:
    return f"deprecated = true, (shop.system.v1.{of}_deprecation) = {dates}"


TOYS = f"""
syntax = "proto3";
package shop.toy.v1;
import "shop/system/v1/deprecation.proto";
import "shop/toy/v1/old.proto";
service ToyService {{
  rpc GetGame(GetGameRequest) returns (Game);
  rpc GetToy(GetToyRequest) returns (Box) {{ {rpc_until(PAST)} }}
  rpc GetLego(OldToy) returns (Game) {{ {rpc_until(PAST)} }}
  rpc GetBall(GetGameRequest) returns (Game) {{ {rpc_until(AHEAD)} }}
  rpc GetDoll(GetGameRequest) returns (Game) {{ {rpc_until(UNDECIDED)} }}
}}
message GetGameRequest {{ string id = 1; }}
message GetToyRequest {{ string id = 1; }}
message Box {{ Lid lid = 1; Game game = 2; }}
message Lid {{ string colour = 1; }}
message Game {{
  string name = 1;
  optional string colour = 2 [{until(PAST)}];
  optional int32 year = 3;
  map<string, string> labels = 4 [{until(PAST)}];
  int32 age = 5 [{until(AHEAD)}];
  Size size = 6;
  Mode mode = 7 [{until(PAST)}];
  enum Mode {{ {enum_until(PAST)} MODE_UNSPECIFIED = 0; }}
}}
enum Size {{
  SIZE_UNSPECIFIED = 0;
  SIZE_SMALL = 1;
  SIZE_LARGE = 2 [{until(PAST, of="value")}];
}}
"""
OLD = f"""
syntax = "proto3";
package shop.toy.v1;
import "shop/system/v1/deprecation.proto";
option deprecated = true;
option (shop.system.v1.file_deprecation) = {PAST};
message OldToy {{ string id = 1; }}
"""


def without(text: str, *beginnings: str) -> str:
    """Return the text without the lines that begin so."""
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not line.strip().startswith(beginnings)]
    assert len(lines) - len(kept) == len(beginnings)
    return "".join(kept)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the contract and the toys, committed once."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("Makefile", "buf.yaml"):
        shutil.copy(REPOSITORY / name, root)
    for name in ("protos", "third_party", "chassis", "generated"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".venv", "node_modules"):
        (root / name).symlink_to(REPOSITORY / name)
    (root / "protos/shop/toy/v1").mkdir(parents=True)
    write(root, TOYS)
    git(root, "init", "--quiet")
    git(root, "add", "Makefile", "buf.yaml", "protos", "third_party")
    git(root, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "Toys")
    return root


def write(root: Path, toys: str) -> None:
    (root / "protos/shop/toy/v1/toy.proto").write_text(toys)
    old = root / "protos/shop/toy/v1/old.proto"
    old.unlink(missing_ok=True)
    if "old.proto" in toys:
        old.write_text(OLD)


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True)


def breaking(root: Path, toys: str) -> list[str]:
    """Return what buf finds in `make breaking` when the toys have changed to this."""
    done = make_breaking(root, toys)
    found = [line for line in done.stdout.splitlines() if "buf breaking" not in line]
    assert (done.returncode == 0) is (not found), done.stdout + done.stderr
    return found


def make_breaking(root: Path, toys: str) -> subprocess.CompletedProcess[str]:
    write(root, toys)
    # The two files say that what the symbolic links lead to is installed.
    return subprocess.run(
        ["make", "--silent", "--old-file=.venv/ready", "--old-file=node_modules/ready", "breaking", "REV=HEAD"],
        cwd=root,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_has_passed_its_sunset_may_be_gone(repository: Path) -> None:
    toys = without(
        TOYS,
        "rpc GetToy",
        "rpc GetLego",
        "message GetToyRequest",
        "message Box",
        "message Lid",
        'import "shop/toy/v1/old.proto"',
    )
    toys = without(toys, "optional string colour", "map<string, string> labels", "SIZE_LARGE", "Mode mode", "enum Mode")
    toys = toys.replace("message Game {", 'message Game { reserved 2, 4, 7; reserved "colour", "labels", "mode";')
    toys = toys.replace("enum Size {", 'enum Size { reserved 2; reserved "SIZE_LARGE";')

    assert breaking(repository, toys) == []


def test_nothing_else_may_be_gone(repository: Path) -> None:
    toys = without(
        TOYS, "rpc GetGame", "rpc GetBall", "rpc GetDoll", "message GetToyRequest", "int32 age", "SIZE_SMALL"
    )
    toys = toys.replace("rpc GetToy(GetToyRequest)", "rpc GetToy(GetGameRequest)")
    # These may be gone, but not unless they leave their number and their name reserved.
    toys = without(toys, "optional string colour", "SIZE_LARGE")

    found = breaking(repository, toys)

    for gone in (
        'RPC "GetGame"',
        'RPC "GetBall"',
        'RPC "GetDoll"',
        'message "GetToyRequest"',
        '"age"',
        'enum value "1"',
    ):
        assert [line for line in found if gone in line and "deleted" in line], gone
    assert len([line for line in found if "reserved" in line]) == 4
    assert not [line for line in found if "labels" in line]


def test_a_sunset_is_put_off_but_not_brought_forward(repository: Path) -> None:
    put_off = make_breaking(repository, TOYS.replace(AHEAD, AHEAD.replace("2999", "3000")))
    brought_forward = make_breaking(repository, TOYS.replace(AHEAD, AHEAD.replace("2999", "2998")))

    assert put_off.returncode == 0, put_off.stderr
    assert brought_forward.returncode != 0
    for name in ("shop.toy.v1.ToyService.GetBall", "shop.toy.v1.Game.age"):
        assert f"{name}: its sunset was 2999-01-01 and is now 2998-01-01" in brought_forward.stderr
