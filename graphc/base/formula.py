"""Formulas such as `d_out * (1 - out ** 2)`, parsed into nested applications of ops."""

from __future__ import annotations

import ast
from functools import cache

Term = str | float | tuple[str, tuple["Term", ...]]
"""A name, a number, or the name of an op with its operands."""

_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "power",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}


@cache
def parsed(text: str) -> Term:
    """Return the term that a formula says; raise ValueError for what no op computes."""
    return _term(ast.parse(text, mode="eval").body)


def _term(node: ast.expr) -> Term:
    match node:
        case ast.Name(name):
            return name
        case ast.Constant(float() | int() as number):
            return float(number)
        case ast.UnaryOp(ast.USub(), inner):
            x = _term(inner)
            return -x if isinstance(x, float) else ("neg", (x,))
        case ast.BinOp(a, operator, b) | ast.Compare(a, [operator], [b]):
            if type(operator) in _OPERATORS:
                return _OPERATORS[type(operator)], (_term(a), _term(b))
        case ast.Call(ast.Name(function), operands, []):
            return function, tuple(map(_term, operands))
    raise ValueError(f"no op computes {ast.unparse(node)}")
