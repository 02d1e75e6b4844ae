"""Choose cells by a condition on their columns, such as `timepoint == 'Healthy' and n_genes > 500`.

A condition is read as a small grammar; nothing in it is ever executed.
"""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["matching_cells"]

_HINT: Final = (
    "Compare columns with values: ==, !=, <, <=, >, >=, in […], not in […]; join with and, or, "
    "not and parentheses. For example: timepoint == 'Healthy' and n_genes > 500."
)
_ORDERS: Final[dict[type, Callable[[Any, Any], Any]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_LONGEST: Final = 1000


def matching_cells(obs: pd.DataFrame, condition: str) -> np.ndarray:
    """Return which cells meet a condition, (n_cells,) bool.

    A comparison with a missing value is false, whatever it asks; `not` turns that around too.

    Raises
    ------
    InputError
        If the condition is not of the grammar, names an unknown column, or no cell meets it.
    """
    if len(condition) > _LONGEST:
        msg = f"The condition has {len(condition):,} characters; {_LONGEST:,} are read."
        raise InputError(msg, _HINT)
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        msg = f'The condition "{condition}" cannot be read ({type(error).__name__}).'
        raise InputError(msg, _HINT) from None
    met = _meets(obs, tree, condition)
    if not met.any():
        msg = f'None of {len(obs):,} cells meets the condition "{condition}".'
        raise InputError(msg, "Look at the values of the columns with `data check`.")
    return met


def _meets(obs: pd.DataFrame, node: ast.expr, condition: str) -> np.ndarray:
    if isinstance(node, ast.BoolOp):
        parts = [_meets(obs, part, condition) for part in node.values]  # noqa: PD011 - of a syntax tree
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return join.reduce(parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_meets(obs, node.operand, condition)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.left, ast.Name):
        column = _column(obs, node.left.id)
        return _compare(column, node.ops[0], _value(node.comparators[0], condition), condition)
    msg = f'"{ast.unparse(node)}" in the condition is no comparison of a column with a value.'
    raise InputError(msg, _HINT)


def _column(obs: pd.DataFrame, name: str) -> pd.Series:
    if name not in obs:
        msg = f'`obs` has no column "{name}". Found: {", ".join(map(str, obs.columns))}.'
        raise InputError(msg, "Name one of these.")
    return obs[name]


def _value(node: ast.expr, condition: str) -> Any:
    """Return text, a number, true or false, or a list of them."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        msg = f'"{ast.unparse(node)}" in "{condition}" is no value.'
        raise InputError(msg, f"Put text into quotes. {_HINT}") from None
    values = value if isinstance(value, list | tuple | set) else [value]
    if not all(isinstance(each, str | int | float) for each in values):
        msg = f'"{ast.unparse(node)}" in "{condition}" is no text or number.'
        raise InputError(msg, _HINT)
    return value


def _compare(column: pd.Series, how: ast.cmpop, value: Any, condition: str) -> np.ndarray:
    is_list = isinstance(value, list | tuple | set)
    is_known = column.notna().to_numpy()
    if isinstance(how, ast.In | ast.NotIn) and is_list:
        found = column.astype(object).isin(list(value)).to_numpy()
        return found if isinstance(how, ast.In) else is_known & ~found
    if isinstance(how, ast.Eq | ast.NotEq) and not is_list:
        found = (column.astype(object) == value).fillna(value=False).to_numpy(dtype=bool)
        return found if isinstance(how, ast.Eq) else is_known & ~found
    if type(how) in _ORDERS and isinstance(value, int | float):
        numbers = pd.to_numeric(column.astype(object), errors="coerce").astype(float)
        if numbers.isna().all() and is_known.any():
            msg = f'The column "{column.name}" holds no numbers, for example "{column.dropna().iloc[0]}".'
            raise InputError(msg, "Compare it by == or in […].")
        return _ORDERS[type(how)](numbers.to_numpy(), value)
    msg = f'"{column.name}" in "{condition}" is compared in a way that has no meaning.'
    raise InputError(msg, _HINT)
