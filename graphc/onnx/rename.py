"""Renaming of the nodes that a converter made to the names that the model gives to its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from graphc.ir.build import Builder, Value
from graphc.onnx.known import Held
from graphc.ops.source import Constant, Parameter, State

_SOURCES = (Constant, Parameter, State)


def renamed(
    b: Builder, before: int, results: Sequence[tuple[Held | None, str]]
) -> Callable[[Sequence[Held | None]], list[Held | None]]:
    """Rename results among nodes after the first `before`; return the function that maps values."""
    made = list(islice(reversed(b.nodes), len(b.nodes) - before))[::-1]
    new: dict[str, str] = {}
    for result, name in results:
        if not isinstance(result, Value) or result.name in new or result.name not in made:
            continue
        if name not in b.nodes and not isinstance(result.node.op, _SOURCES):
            new[result.name] = name
    if new:
        for old in made:
            node = b.nodes.pop(old)
            inputs = tuple(new.get(operand, operand) for operand in node.inputs)
            b.insert(replace(node, name=new.get(old, old), inputs=inputs))

    def current(operands: Sequence[Held | None]) -> list[Held | None]:
        return [
            Value(b, new[o.name]) if isinstance(o, Value) and o.name in new else o for o in operands
        ]

    return current
