"""`make service NAME=stock RESOURCE=StockItem`, `make service-remove NAME=stock` and `make rename NAME=Acme`."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Final

from chassis.service import ROOT, SUFFIX, InvalidDeclaration, services
from devstack.scaffold import files
from devstack.scaffold.names import BadName, camel, names_of, require_free, snake, with_publishers
from devstack.scaffold.removal import FILE, Drifted, removal_of
from devstack.scaffold.rename import FORMATTING, new_name, rename
from envoy.render import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from chassis.service import Service
    from devstack.scaffold.names import Names


class Refused(Exception):
    """The command did nothing. The message says what to do first."""


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m devstack.scaffold")
    commands = parser.add_subparsers(required=True)
    create = commands.add_parser("create", help="write a new service")
    create.add_argument("name")
    for option in ("resource", "plural", "reads", "key"):
        create.add_argument(f"--{option}", default="")
    create.set_defaults(do=_create)
    remove = commands.add_parser("remove", help="remove a service")
    remove.add_argument("name")
    remove.set_defaults(do=_remove)
    renaming = commands.add_parser("rename", help="give the project its own name")
    renaming.add_argument("name")
    renaming.set_defaults(do=_rename)
    arguments = parser.parse_args()
    try:
        arguments.do(arguments)
    except (BadName, Refused, InvalidDeclaration) as error:
        sys.exit(f"{error}.")


def _create(arguments: argparse.Namespace) -> None:
    if not arguments.name.strip():
        raise BadName("NAME is missing: make service NAME=stock RESOURCE=StockItem")
    names = names_of(
        arguments.name,
        resource=arguments.resource,
        plural=arguments.plural,
        reads=arguments.reads,
        key=arguments.key,
    )
    existing = {service.name: service for service in services()}.get(names.package)
    if existing and existing.collection == names.resources:
        print(f"{names.package} is there already: nothing was changed.")
        return
    require_free(names, services())
    names = with_publishers(names, services())
    files.require_distinct(names)
    _require_clean()
    written: list[Path] = []
    try:
        for path, text in files.of_new(names):
            written.append(_write_new(ROOT / path, text))
        print(f"Wrote {len(written)} files of {names.package}; generating what follows from them ...")
        _regenerate(written)
    except BaseException:
        _delete(written)
        _make("generate")
        raise
    print(_first_steps(names))


def _write_new(file: Path, text: str) -> Path:
    if file.exists():
        raise Refused(f"{file.relative_to(ROOT)} exists already, and would be overwritten: move it away")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _remove(arguments: argparse.Namespace) -> None:
    found = {service.name: service for service in services()}
    if not arguments.name.strip():
        raise BadName(f"NAME is missing: make service-remove NAME=stock; there are {', '.join(found)}")
    name = f"{snake(arguments.name).removesuffix(SUFFIX)}{SUFFIX}"
    if name not in found:
        raise Refused(f"there is no service {name}; there are {', '.join(found)}")
    service = found[name]
    if KEYS.partition("/")[0] in service.serves:
        raise Refused(
            f"{name} issues the access tokens that the edge and every service verify: keep it, or see "
            "docs/start-your-own.md for what takes its place"
        )
    removal = removal_of(service)
    try:
        edited = removal.edited()
    except Drifted as error:
        raise Refused(
            f"{name}/{FILE} does not fit the tree. Correct these entries, or remove those whose text is yours now:\n"
            f"{error}"
        ) from error
    _require_unused(service, found.values(), edited)
    _require_clean()
    paths = removal.paths(service)
    for path, content in edited.items():
        path.write_text(content, encoding="utf-8")
    _delete(paths)
    _make("generate")
    _tidy(path for path in edited if path.suffix == ".py")
    print(f"Removed {name}: {', '.join(str(path.relative_to(ROOT)) for path in paths)}.")
    if edited:
        print(f"Changed {len(edited)} other files. See them with `git diff --diff-filter=M`, then commit.")
    print("Its database, its stream in Redis and its secrets are left: remove them by hand when nobody needs them.")


def _require_unused(service: Service, all_services: Iterable[Service], edited: Mapping[Path, str]) -> None:
    """Return if no other service calls it or reads its events, once the files are edited.

    Raises:
        Refused: one does.
    """
    for other in all_services:
        told = tomllib.loads(edited.get(other.file) or other.file.read_text(encoding="utf-8"))
        where = other.file.relative_to(ROOT)
        if service.name in told.get("calls", ()):
            raise Refused(
                f"{other.name} calls {service.name}: remove it first, or its client of {service.name} "
                f"and the name from `calls` in {where}"
            )
        if service.publishes in told.get("reads", ()):
            raise Refused(
                f"{other.name} reads events of {service.publishes}: remove it first, or its consumer of them "
                f"and the name from `reads` in {where}"
            )


def _tidy(python: Iterable[Path]) -> None:
    """Remove the imports that an edit has left without a use, and format."""
    files = [str(path) for path in python]
    if files:
        _require("ruff", "check", "--quiet", "--select", "F401,I,TC005", "--fix", *files)
        _require("ruff", "format", "--quiet", *files)


def _rename(arguments: argparse.Namespace) -> None:
    _changes()  # the name is compared with the files that git knows
    name = new_name(arguments.name)
    _require_clean()
    changed = rename(name)
    shutil.rmtree(ROOT / "generated")
    _make("generate")
    for command in FORMATTING:
        _require(*command)
    _make("generate")
    print(f"{name} is its name now: {changed} files have changed. See them with `git diff --stat`, then commit.")


def _require_clean() -> None:
    """Return if everything is committed: then `git diff` shows what is new, and `git checkout` takes it back.

    Raises:
        Refused: something is not, or there is no repository.
    """
    if changed := _changes():
        names = ", ".join(line[3:] for line in changed[:5])
        raise Refused(f"the tree has uncommitted changes ({names}): commit or stash them first")


def _changes() -> list[str]:
    """Return the lines of `git status` about what is not committed.

    Raises:
        Refused: there is no repository.
    """
    status = _run("git", "status", "--porcelain")
    if status.returncode:
        raise Refused(
            "git does not know this folder, so that nothing could be taken back. In a copy of the files, begin a "
            "repository: git init && git add --all && git commit --message Begin"
        )
    return status.stdout.splitlines()


def _regenerate(written: Iterable[Path]) -> None:
    python = [str(path) for path in written if path.suffix == ".py"]
    for command in (
        ("buf", "format", "--write", "protos"),
        ("make", "--no-print-directory", "generate"),
        ("ruff", "check", "--quiet", "--select", "I", "--fix", *python),
        ("ruff", "format", "--quiet", *python),
    ):
        _require(*command)


def _make(target: str) -> None:
    _require("make", "--no-print-directory", target)


def _require(*command: str) -> None:
    done = _run(*command)
    if done.returncode:
        raise Refused(f"`{' '.join(command[:3])}` failed: {done.stdout}{done.stderr}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == ROOT or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


_STEPS: Final = """
{package} is there. Its contract is protos/shop/{service}/v1, its code {package}, its page docs/services/{service}.md.
See it with `git status` and commit it; from then on `make service-remove NAME={service}` takes it back.

`make lint test-unit` and .venv/bin/pytest tests/integration/{package} test it. `make run` runs it; then:

1. As the admin (password: cat .devstack/admin):

LOGIN='{{"email": "admin@shop.local", "password": "'$(cat .devstack/admin)'"}}'
TOKEN=$(curl -sS localhost:8080/api/v1/sessions -H 'content-type: application/json' -d "$LOGIN" \\
  | sed 's/.*"accessToken":"\\([^"]*\\)".*/\\1/')

2. Create {article} {words}:

curl -sS localhost:8080/api/v1/{path} -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' \\
  -d '{example}'

3. List them, over gRPC:

grpcurl -plaintext -H "authorization: Bearer $TOKEN" localhost:8080 shop.{service}.v1.{type}Service/List{types}
"""


def _first_steps(names: Names) -> str:
    words = names.resource.replace("_", " ")
    return _STEPS.format(
        package=names.package,
        service=names.service,
        article="an" if words[0] in "aeiou" else "a",
        words=words,
        path=names.resources.replace("_", "-"),
        example=json.dumps({**({"id": "first-1"} if names.key == "text" else {}), "displayName": "The first"}),
        type=camel(names.service),
        types=camel(names.resources),
    )


if __name__ == "__main__":
    main()
