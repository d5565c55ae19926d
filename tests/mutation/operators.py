"""The faults that are planted, one at a time: Cosmic Ray's operators, one of each kind a place, and some of our own.

A position is a place in the file; an operator says where it can change something, and changes it (its documentation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider
from parso.python.tree import Name
from typing_extensions import override

from tests.mutation import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    Node = Any  # parso's: a leaf has a value, any other has children
    Position = tuple[tuple[int, int], tuple[int, int]]

# One change a place: that `<` is tested as well against `!=` tells no more than that it is tested against `<=`.
_TAKEN: Final = (
    *(f"ReplaceComparisonOperator_{each}" for each in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq", "NotEq_Eq")),
    *(f"ReplaceComparisonOperator_{each}" for each in ("Is_IsNot", "IsNot_Is")),
    *(f"ReplaceBinaryOperator_{each}" for each in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul")),
    *(f"ReplaceBinaryOperator_{each}" for each in ("Mod_Mul", "BitOr_BitAnd", "BitAnd_BitOr", "LShift_RShift")),
    *("ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub"),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "RemoveDecorator"),
    "ZeroIterationForLoop",
)


class _OwnOperator(Operator):  # type: ignore[misc]  # Cosmic Ray has no types
    """An operator whose examples are in the tests."""

    @classmethod
    @override
    def examples(cls) -> tuple[()]:
        return ()


class SqlFault(_OwnOperator):
    """Changes a statement in a string."""

    @override
    def mutation_positions(self, node: Node) -> Iterator[Position]:
        return iter([self._position(node, node.value[: change.start]) for change in _sql_changes(node)])

    @override
    def mutate(self, node: Node, index: int) -> Node:
        change = _sql_changes(node)[index]
        node.value = node.value[: change.start] + change.text + node.value[change.end :]
        return node

    def _position(self, node: Node, before: str) -> Position:
        row = node.start_pos[0] + before.count("\n")
        column = len(before) - before.rfind("\n") - 1 + (0 if "\n" in before else node.start_pos[1])
        return (row, column), (row, column + 1)


class StatementDropped(_OwnOperator):
    """Leaves out a call whose result is not used, an assignment to an attribute, a raise or an early return."""

    @override
    def mutation_positions(self, node: Node) -> Iterator[Position]:
        if node.type == "simple_stmt" and len(node.children) == 2 and _is_effect(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    @override
    def mutate(self, node: Node, index: int) -> Node:
        node.children[0] = _leaf("pass", like=node.children[0])
        return node


class NameSwapped(_OwnOperator):
    """Takes the other one of two functions that are easily mistaken for each other."""

    _OTHER: Final = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}

    @override
    def mutation_positions(self, node: Node) -> Iterator[Position]:
        if node.type == "name" and node.value in self._OTHER:
            before, after = node.get_previous_leaf(), node.get_next_leaf()
            if after is not None and after.value == "(" and (before is None or before.value not in {".", "def"}):
                yield node.start_pos, node.end_pos

    @override
    def mutate(self, node: Node, index: int) -> Node:
        node.value = self._OTHER[node.value]
        return node


class MembershipNegated(_OwnOperator):
    """Takes `in` for `not in`, and the other way round."""

    @override
    def mutation_positions(self, node: Node) -> Iterator[Position]:
        if node.type == "comparison" and node.children[1].get_code().split() in (["in"], ["not", "in"]):
            yield node.children[1].start_pos, node.children[1].end_pos

    @override
    def mutate(self, node: Node, index: int) -> Node:
        is_negative = node.children[1].get_code().strip() != "in"
        node.children[1] = _leaf("in" if is_negative else "not in", like=node.children[1])
        return node


class FailureMissed(_OwnOperator):
    """Catches an exception that is never raised. Cosmic Ray's own operator does not support `module.Name`."""

    @override
    def mutation_positions(self, node: Node) -> Iterator[Position]:
        if node.type == "except_clause":
            yield node.children[1].start_pos, node.children[1].end_pos

    @override
    def mutate(self, node: Node, index: int) -> Node:
        node.children[1] = _leaf("FloatingPointError", like=node.children[1])
        return node


class NumberChanged(_OwnOperator):
    """Counts one too many. Below ten: a larger number is a measure, held by the bound that its test states."""

    @override
    def mutation_positions(self, node: Node) -> Iterator[Position]:
        if node.type == "number" and node.value.isdigit() and int(node.value) < 10:
            yield node.start_pos, node.end_pos

    @override
    def mutate(self, node: Node, index: int) -> Node:
        node.value = str(int(node.value) + 1)
        return node


class ClauseDropped(_OwnOperator):
    """Leaves a clause out of a query that is built by calls."""

    _CLAUSES: Final = frozenset({"where", "order_by", "limit", "with_for_update", "desc", "distinct", "on_conflict"})

    @override
    def mutation_positions(self, node: Node) -> Iterator[Position]:
        # A list: mutate() removes children while its caller still asks for positions.
        return iter([(node.children[n].start_pos, node.children[n].end_pos) for n in self._found(node)])

    @override
    def mutate(self, node: Node, index: int) -> Node:
        n = self._found(node)[index]
        del node.children[n : n + 2]
        return node

    def _found(self, node: Node) -> list[int]:
        if node.type != "atom_expr":
            return []
        pairs = zip(node.children, node.children[1:], strict=False)
        return [
            n
            for n, (name, call) in enumerate(pairs)
            if name.type == "trailer" and name.children[-1].value in self._CLAUSES and call.get_code().startswith("(")
        ]


def operators() -> dict[str, Any]:
    """Return every operator by its name."""
    provider = OperatorProvider()
    own = (SqlFault, ClauseDropped, StatementDropped, FailureMissed, NameSwapped, MembershipNegated, NumberChanged)
    return {name: provider[name]() for name in _TAKEN} | {each.__name__: each() for each in own}


def _sql_changes(node: Node) -> list[sql.Change]:
    if node.type == "string":
        quote = 3 if node.value.endswith(('"""', "'''")) else 1
        first, last = node.value.index(node.value[-1]) + quote, len(node.value) - quote
        text = node.value[first:last]
        if not sql.is_sql(text) or _is_documentation(node):
            return []
        return [sql.Change(first + start, first + end, after) for start, end, after in sql.changes(text, goes_on=False)]
    if node.type != "fstring_string" or not sql.is_sql(node.parent.get_code()):
        return []
    following = node.get_next_sibling()
    return sql.changes(node.value, goes_on=following is not None and following.type == "fstring_expr")


def _is_documentation(node: Node) -> bool:
    return node.parent is not None and node.parent.type == "simple_stmt"


def _is_effect(node: Node) -> bool:
    code = node.get_code(include_prefix=False)  # without the comments above it
    if node.type == "raise_stmt" or code in {"return", "continue", "raise"}:
        return True
    if node.type == "expr_stmt":
        return node.children[0].type == "atom_expr" and not _is_in_init(node)
    # Log lines are for people; lines that matter have tests of their own.
    return (node.type == "atom_expr" or code.startswith("await ")) and not code.startswith("log.")


def _is_in_init(node: Node) -> bool:
    function = node.search_ancestor("funcdef")
    return function is not None and function.name.value == "__init__"


def _leaf(text: str, *, like: Node) -> Node:
    """Return the text as a node, with the blanks that stood before the other one."""
    return Name(text, like.start_pos, prefix=like.get_first_leaf().prefix)
