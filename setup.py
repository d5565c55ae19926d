"""Builds the wheel, in which everything is below `shop`: the stubs, `shop.client` and `shop.testing`.

The last two are the packages `protos/client` and `protos/testing` of the repository, with the modules that they import.
Packages named `chassis` and `buf` could collide with others where the wheel is installed, so those modules move below
`shop`, and the stubs do not import the rules of `buf.validate`. The rest of the project's configuration is in
pyproject.toml.
"""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Final

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

STUBS: Final = Path("generated")

# The packages of the wheel. The modules that they import come along.
ROOTS: Final = ("protos.client", "protos.testing")
# Measures nothing in the wheel, so what the real one imports stays out.
TELEMETRY: Final = "chassis.telemetry"
SERVICES: Final = tuple(sorted(path.name for path in Path().glob("*_svc")))
# The names of packages in the wheel; the longer ones first.
NAMES: Final = {
    "protos.client": "shop.client",
    "protos.deprecation": "shop._deprecation",
    "protos.testing.quiet": "shop._chassis.telemetry",
    "protos.testing.rules": "shop._buf.validate",
    "protos.testing": "shop.testing",
    "chassis": "shop._chassis",
    "buf": "shop._buf",
    **{service: f"shop._{service}" for service in SERVICES},
}
# Typed here: googleapis-common-protos has types that mypy does not read, because it has no `py.typed`.
TYPED_MONEY: Final = "shop.client"

# Files of rules. A stub has the rules of its fields as bytes, which only validation reads.
RULES: Final = ("buf/validate/validate.proto", "shop/system/v1/text_rules.proto")


class BuildWheel(build_py):
    """Writes the packages of the wheel into `build_lib`."""

    def run(self) -> None:
        """Write them; for an editable installation leave everything where it is."""
        if self.editable_mode:
            super().run()
            return
        target = Path(self.build_lib)
        shutil.rmtree(target, ignore_errors=True)  # what an earlier build has left would be packed too
        _write_stubs(target)
        for module, file in modules_of_wheel().items():
            _write_module(file, target.joinpath(*moved_name(module).split(".")))


class BuildEditable(editable_wheel):
    """Leaves out the pytest plugin: the repository has no `shop.testing`, so every pytest run would fail to load it."""

    def _ensure_dist_info(self) -> None:
        super()._ensure_dist_info()
        Path(self.dist_info_dir, "entry_points.txt").unlink(missing_ok=True)


def modules_of_wheel() -> dict[str, Path]:
    """Return the files of ROOTS and of all that they import of the repository, by the modules' names."""
    found: dict[str, Path] = {}
    waiting = [_module(file) for root in ROOTS for file in Path(*root.split(".")).rglob("*.py")]
    while waiting:
        module = waiting.pop()
        file = _file(module)
        if file is None or module in found or module.startswith(TELEMETRY):
            continue
        found[module] = file
        waiting += _imported(ast.parse(file.read_text(encoding="utf-8")))
        waiting += [module.rpartition(".")[0]]  # importing a module runs its package too
    return found


def _module(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def _file(module: str) -> Path | None:
    """Return the file of a module of the repository; None for any other, and for a name that is no module."""
    if not any(f"{module}.".startswith(f"{each}.") for each in NAMES):
        return None
    path = (STUBS if module.startswith("buf.") else Path()).joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def _imported(node: ast.AST) -> list[str]:
    """Return what a module imports when it runs, and not only for type checkers. Any of it may be no module."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return []
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
    return [name for child in ast.iter_child_nodes(node) for name in _imported(child)]


def _write_module(source: Path, path: Path) -> None:
    """Write a module, with the types and the texts beside it."""
    path = path / "__init__" if source.stem == "__init__" else path
    path.parent.mkdir(parents=True, exist_ok=True)
    for file in (source, source.with_suffix(".pyi")):
        if file.exists():
            path.with_suffix(file.suffix).write_text(moved(file.read_text(encoding="utf-8")), encoding="utf-8")
    for text in source.parent.glob("*.txt"):
        shutil.copy(text, path.parent)


def _write_stubs(target: Path) -> None:
    for source in sorted(path for path in (STUBS / "shop").rglob("*") if path.suffix in {".py", ".pyi", ".typed"}):
        name = source.relative_to(STUBS)
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        if path.suffix == ".pyi":
            text = text.replace("from google.type import money_pb2", f"from {TYPED_MONEY} import money_pb2")
        # Code that needs the rules imports this module.
        is_rules = name.stem == "text_rules_pb2"
        path.write_text(moved(text) if is_rules else without_rules(text), encoding="utf-8")


def moved_name(package: str) -> str:
    """Return the name that a package of the repository has in the wheel."""
    name = next(each for each in NAMES if package == each or package.startswith(f"{each}."))
    return NAMES[name] + package.removeprefix(name)


def moved(source: str) -> str:
    """Return a module's source with the names of the wheel, in its imports and in its documentation."""
    names = "|".join(map(re.escape, NAMES))
    source = re.sub(rf"(?m)^( *(?:from|import) )({names})\b", lambda found: found[1] + NAMES[found[2]], source)
    source = re.sub(r"(?m)^import structlog$", "from shop._chassis.telemetry import structlog", source)
    if "AddSerializedFile" in source:  # a descriptor names packages too
        return source
    return re.sub(rf"(?<![\w.])({names})(?=\.\w)", lambda found: NAMES[found[1]], source)


def without_rules(source: str) -> str:
    """Return a stub's source without its imports of rules.

    A process has one pool of descriptors, with one version of each file. Another package may bring another version of
    buf/validate/validate.proto, so that one of the two could not be imported. Without the import the options that use
    the rules stay in the descriptor, as fields that it does not know.
    """
    descriptor = re.search(r"(?<=AddSerializedFile\()b'.*'(?=\))", source)
    if descriptor is None:
        return source
    data: bytes = ast.literal_eval(descriptor[0])
    kept = data
    for file in RULES:
        folder, _, name = file.removesuffix(".proto").rpartition("/")
        source = re.sub(rf"(?m)^from {folder.replace('/', '.')} import {name}_pb2 as .*\n", "", source)
        # A dependency is field 3 of FileDescriptorProto: its tag, its length, its text. Messages come after it.
        kept = kept.replace(b"\x1a" + bytes([len(file)]) + file.encode(), b"", 1)
    source = source.replace(descriptor[0], repr(kept))
    shift = len(data) - len(kept)
    return re.sub(r"(?<=_serialized_)(start|end)=(\d+)", lambda found: f"{found[1]}={int(found[2]) - shift}", source)


setup(cmdclass={"build_py": BuildWheel, "editable_wheel": BuildEditable})
