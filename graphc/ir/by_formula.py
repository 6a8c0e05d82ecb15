"""Gradient rules that are what an op's `gradient_text` says: pictures show the rule itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from graphc.base.door import higher
from graphc.base.formula import Term, parsed
from graphc.ir.build import Builder, Value
from graphc.ir.op import Cotangents, Op, attributes


class ByFormula(Op, base=True):
    """The base of ops whose gradient rule is their `gradient_text`, one formula an operand.

    Their functions are graphc's, but `sum(x, axis)` keeps the axis.  Equal parts of the formulas
    become one node.
    """

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return what the formulas give, summed to the shapes of operands that were broadcast."""
        if not self.gradient_text:
            return super().grad(b, ins, out, dout)
        own = attributes(self)
        rule = _rule(self.roles, (*own,), self.gradient_text)
        return rule(*ins, out, dout, *own.values())


@cache
def _rule(
    roles: tuple[str, ...], attributes: tuple[str, ...], texts: tuple[str, ...]
) -> Callable[..., Cotangents]:
    """Return the function of the operands, `out`, `d_out` and the attributes that formulas say.

    Where a formula is empty it returns None.  The last one is for all further operands, too.
    """
    known: dict[Term, str] = {}
    texts += texts[-1:] * (len(roles) - len(texts))
    parts = [
        f"unbroadcast({_called(parsed(text), known)}, {role})" if text else "None"
        for role, text in zip(roles, texts, strict=True)
    ]
    names = ", ".join((*roles, "out", "d_out", *attributes))
    rule: Callable[..., Cotangents] = eval(f"lambda {names}: ({', '.join(parts)},)", _functions())
    return rule


@cache
def _functions() -> dict[str, Any]:
    """Return the functions that formulas call, by name."""
    ops = higher("ops")
    sums = {"sum": lambda x, axis: ops["sum"](x, int(axis), keepdims=True)}
    return {**ops, **sums, "unbroadcast": higher("unbroadcast")}


def _called(term: Term, known: dict[Term, str]) -> str:
    """Return a term as calls of functions; `known` has names of the parts that are computed."""
    if isinstance(term, (str, float)):
        return str(term)
    if term in known:
        return known[term]
    name, operands = term
    if name == "power" and operands[1] == 2:
        name, operands = "mul", (operands[0], operands[0])
    text = f"{name}({', '.join([_called(operand, known) for operand in operands])})"
    known[term] = f"part_{len(known)}"
    return f"({known[term]} := {text})"
