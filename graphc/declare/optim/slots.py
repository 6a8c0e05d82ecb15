"""The parts of update rules: slots, next values, and a gradient with its decay."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.base.errors import GraphError
from graphc.ir.build import Value
from graphc.ir.op import Op
from graphc.ops.elementwise import add, div, mul
from graphc.ops.functions import sqrt
from graphc.ops.source import State, state


def slot(p: Value, kind: str) -> Value:
    """Return the state `<parameter>.<kind>`, made with zeros of the parameter's type if missing.

    Raise GraphError if another node has that name.
    """
    name = f"{p.name}.{kind}"
    node = p.builder.nodes.get(name)
    if node is not None and (not isinstance(node.op, State) or node.type != p.type):
        raise GraphError(
            f"the name {name!r} is taken already, by {node.op.name}",
            loc=node.locs[0] if node.locs else None,
            hint=f"the optimizer keeps the {kind} of parameter {p.name!r} under it",
        )
    return state(p.builder, name, p.type)


def next_value(target: Value, op: Op, *operands: Value) -> Value:
    """Apply an op whose result is the next value of a parameter or slot."""
    b = target.builder
    new = b.apply(op, *operands, name=next_name(target))
    b.update(target, new)
    return new


def next_name(target: Value) -> str:
    """Return a free name for the next value of a parameter or slot."""
    return target.builder.unique(f"{target.name}.next")


def operands_with_decay(decay: float, p: Value) -> Sequence[Value]:
    """Return the parameter as an operand, for ops that read it only if there is decay."""
    return (p,) if decay else ()


def decayed(p: Value, g: Value, decay: float) -> Value:
    """Return the gradient with the gradient of the L2 norm added."""
    return add(g, mul(p, decay), name=p.builder.unique(f"{p.name}.decayed")) if decay else g


def divided(p: Value, g: Value, square: Value, eps: float) -> Value:
    """Return g / (sqrt(square) + eps)."""
    spread = add(sqrt(square), eps, name=p.builder.unique(f"{p.name}.spread"))
    return div(g, spread, name=p.builder.unique(f"{p.name}.direction"))
