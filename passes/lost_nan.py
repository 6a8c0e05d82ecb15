"""NaN that products of int8 lose: it is kept beside them, and comes out with the results.

    x.int8 = quantize(x)              x.int8 = quantize(x)
    ...                        ->     x.nan = sum(x - x)          0 or NaN, for each row
    y = ...                           y = ... - x.nan

A row with a number that is not finite before a product of int8 has NaN in all results that follow.
`x - x` is +0 of all finite numbers, and y - 0 is y, so that no bit of theirs changes.
"""

from __future__ import annotations

from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import N, TensorType
from graphc.ops import OPS
from graphc.ops.arithmetic import Fmod, Mod, Pow
from graphc.ops.elementwise import Div, Power, Sub
from graphc.ops.functions import Exp, Expm1, Log, Log1p, Sqrt
from graphc.ops.shape import Reshape
from graphc.ops.sums import Sum
from graphc.ops.trigonometry import Acos, Acosh, Asin, Atanh, Cosh, Sinh

PARTIAL = (
    *(Div, Fmod, Mod, Pow, Power, Sqrt),
    *(Acos, Acosh, Asin, Atanh, Cosh, Exp, Expm1, Log, Log1p, Sinh),
)
"""The ops that make numbers that are not finite of others that are."""


class LostNan:
    """The values of a graph that may be NaN, and those that have lost NaN to products of int8."""

    def __init__(self, b: Builder) -> None:
        self._b = b
        self._possible: set[str] = set()
        """The values that may hold numbers that are not finite."""
        self._lost: dict[str, dict[str, None]] = {}
        """For each value those quantized before it that may hold such numbers."""
        self._flags: dict[str, Value] = {}

    def take(self, node: Node, quantized: str = "") -> None:
        """Note a node, and the value that it multiplies in int8."""
        lost = {name: None for operand in node.inputs for name in self._lost[operand]}
        if quantized in self._possible:
            lost[quantized] = None
        op, own = node.op, OPS.get(node.op.name) is type(node.op)
        makes = not own or isinstance(op, PARTIAL) or (op.is_input and node.type.is_float)
        if not quantized and (makes or not self._possible.isdisjoint(node.inputs)):
            self._possible.add(node.name)
        self._lost[node.name] = lost

    def outputs(self, graph: Graph) -> dict[str, str]:
        """Add the outputs that have lost NaN, with it, and return their names by the old ones."""
        made: dict[str, str] = {}
        for name in dict.fromkeys(graph.outputs.values()):
            value = self._b.value(name)
            for source in self._lost[name] if value.type.is_float else ():
                flag = self._shaped(self._flag(source), value.type)
                value = self._b.apply(Sub(), value, flag, name=self._b.unique(f"{name}.nan"))
            made[name] = value.name
        return made

    def _flag(self, source: str) -> Value:
        """Return 0 or NaN for each row of a value, or for all together if its rows are not N."""
        if source not in self._flags:
            x = self._b.value(source)
            rest = tuple(i for i in range(x.type.rank) if i != _rows(x.type))
            none = self._b.apply(Sub(), x, x, name=self._b.unique(f"{source}.none"))
            name = self._b.unique(f"{source}.nan")
            self._flags[source] = self._b.apply(Sum(rest), none, name=name) if rest else none
        return self._flags[source]

    def _shaped(self, flag: Value, type: TensorType) -> Value:
        """Return a flag in a shape that is repeated over a value of this type."""
        rows = _rows(type)
        if flag.type.rank == 0:
            return flag
        if rows is None:
            return self._b.apply(Sum((0,)), flag)
        shape = tuple(dim if i == rows else 1 for i, dim in enumerate(type.shape))
        return self._b.apply(Reshape(shape), flag)


def _rows(type: TensorType) -> int | None:
    """Return the axis of the rows of the batch, or None if they are not one axis by themselves."""
    axes = [i for i, dim in enumerate(type.shape) if dim == N]
    return axes[0] if len(axes) == 1 else None
