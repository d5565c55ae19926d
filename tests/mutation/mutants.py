"""Every mutant of a module: its text with one fault planted into it."""

from __future__ import annotations

import ast
import difflib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from typing_extensions import override

from tests.mutation.operators import operators

if TYPE_CHECKING:
    from collections.abc import Iterator

# Checked by mypy and not observable by a call, such as annotations and whether a dataclass is frozen; or only saving
# time.
_IGNORED_DECORATORS: Final = ("override", "final", "abstractmethod", "functools.cache")

_OPPOSITE: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one fault.

    Attributes:
        module: its path from the root of the repository.
        function: where the fault is; `<module>` outside of every function and class. A method has its class's name.
        line: of the original, from 1.
        operator: what was done.
        before: the line, or lines, that the fault replaces, without blanks around them.
        after: what stands there instead.
        text: the whole module, with the fault.
    """

    module: str
    function: str
    line: int
    operator: str
    before: str
    after: str
    text: str

    @property
    def id(self) -> str:
        """An id that is unique among the mutants of every version of the module's text."""
        return hashlib.sha256(f"{self.module}\0{self.text}".encode()).hexdigest()[:16]

    def diff(self, original: str) -> str:
        """Return the change as a unified diff without a header."""
        lines = difflib.unified_diff(original.splitlines(), self.text.splitlines(), lineterm="", n=2)
        return "\n".join(list(lines)[2:])


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Return the mutants that a test could tell from the original, in the order of their lines.

    Left out is what Python does not take or reads as the original: a changed annotation or documentation.
    """
    tree = get_ast(source)
    seen = {_meaning(source)}
    found: list[Mutant] = []
    for name, operator in operators().items():
        positions = [(node, each) for node in ast_nodes(tree) for each in operator.mutation_positions(node)]
        for occurrence, (node, ((line, _column), _end)) in enumerate(positions):
            if node.parent is not None and node.parent.type == "parameters":
                continue  # the `*` or `/` between parameters, which Cosmic Ray takes for an operator
            text = mutate_code(source, operator, occurrence)
            meaning = _meaning(text) if text is not None else None
            if meaning is None or meaning in seen:
                continue
            seen.add(meaning)
            before, after = _changed(source, text)
            found.append(Mutant(module, function_at(source, line), line, name, before, after, text))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.operator, mutant.after))


def function_at(source: str, line: int) -> str:
    """Return the qualified name of the innermost function or class around a line."""
    names = [node.name for node in _around(ast.parse(source), line)]
    return ".".join(names) or "<module>"


def _around(tree: ast.AST, line: int) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first <= line <= (node.end_lineno or first):
                yield node
        yield from _around(node, line)


def _changed(source: str, text: str) -> tuple[str, str]:
    before, after = source.splitlines(), text.splitlines()
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    parts = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    first, last = parts[0], parts[-1]
    return (
        "\n".join(line.strip() for line in before[first[1] : last[2]]),
        "\n".join(line.strip() for line in after[first[3] : last[4]]),
    )


def _meaning(source: str) -> str | None:
    """Return what Python makes of the text, without annotations and documentation; None if it does not take it."""
    try:
        tree = ast.parse(source)
        compile(source, "<mutant>", "exec")
    except (SyntaxError, ValueError):
        return None
    return ast.dump(_Bare().visit(tree))


class _Bare(ast.NodeTransformer):
    @override
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    @override
    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node

    @override
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self._strip(node)
        return node

    @override
    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        self._strip(node)
        return node

    @override
    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.decorator_list = [each for each in node.decorator_list if "dataclass" not in ast.unparse(each)]
        if any(ast.unparse(base).startswith("Protocol") for base in node.bases):
            node.body = [ast.Pass()]  # which nothing runs
        self.generic_visit(node)
        return node

    @override
    def visit_Call(self, node: ast.Call) -> ast.Call:
        if ast.unparse(node.func) == "TypeVar":
            node.keywords = []
        self.generic_visit(node)
        return node

    @override
    def visit_If(self, node: ast.If) -> ast.If:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            return ast.If(ast.Constant(value=False), [ast.Pass()], [])
        self.generic_visit(node)
        return node

    @override
    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """`not a is b` is `a is not b`, and `not not a` is a condition like `a`."""
        self.generic_visit(node)
        inner = node.operand
        if isinstance(node.op, ast.Not) and isinstance(inner, ast.UnaryOp) and isinstance(inner.op, ast.Not):
            return inner.operand
        if isinstance(node.op, ast.Not) and isinstance(inner, ast.Compare) and type(inner.ops[0]) in _OPPOSITE:
            return ast.Compare(inner.left, [_OPPOSITE[type(inner.ops[0])](), *inner.ops[1:]], inner.comparators)
        return node

    @override
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | ast.Pass:
        if isinstance(node.value, ast.Constant):
            return ast.Pass()
        self.generic_visit(node)
        return node

    def _strip(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        node.returns = None
        node.decorator_list = [each for each in node.decorator_list if ast.unparse(each) not in _IGNORED_DECORATORS]
        self.generic_visit(node)
