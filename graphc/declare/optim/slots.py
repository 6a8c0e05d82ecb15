"""The parts of update rules: slots, next values, averages, clipped gradients, names of states."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphc.base.errors import GraphError
from graphc.declare.optim.optimizer import AVERAGE, AVERAGES_MADE, Optimizer
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, Role
from graphc.ops.elementwise import add, div, mul
from graphc.ops.functions import abs_, sqrt
from graphc.ops.optim import Average, ClipScale, SquareSum
from graphc.ops.reduce import max_
from graphc.ops.select import clip, maximum
from graphc.ops.shape import as_dtype, cast
from graphc.ops.source import COUNTER, State, global_state, state


def slot(p: Value, kind: str) -> Value:
    """Return the state `<parameter>.<kind>`, made with zeros of the parameter's type if missing.

    Raise GraphError if another node has that name.
    """
    name = f"{p.name}.{kind}"
    node = p.builder.nodes.get(name)
    if node is not None and (not node.op.is_state or node.type != p.type):
        raise GraphError(
            f"the name {name!r} is taken already, by {node.op.name}",
            loc=node.loc,
            hint=f"the optimizer keeps the {kind} of parameter {p.name!r} under it",
        )
    return state(p.builder, name, p.type, role=Role("slot", p.name, kind))


def next_value(target: Value, op: Op, *operands: Value) -> Value:
    """Apply an op whose result is the next value of a parameter or slot."""
    b = target.builder
    new = b.apply(op, *operands, name=next_name(target))
    b.update(target, new)
    return new


def next_name(target: Value) -> str:
    """Return a free name for the next value of a parameter or slot."""
    return target.builder.unique(f"{target.name}.next")


def operands_with_decay(decay: Sequence[Value], p: Value) -> Sequence[Value]:
    """Return the last operands of ops that read the parameter only if there is decay."""
    return (p, *decay) if decay else ()


def decayed(p: Value, g: Value, decay: Sequence[Value]) -> Value:
    """Return g + decay * p, the gradient with weight decay if there is some."""
    return add(g, mul(p, *decay), name=p.builder.unique(f"{p.name}.decayed")) if decay else g


def divided(p: Value, g: Value, square: Value, eps: float) -> Value:
    """Return g / (sqrt(square) + eps)."""
    spread = add(sqrt(square), eps, name=p.builder.unique(f"{p.name}.spread"))
    return div(g, spread, name=p.builder.unique(f"{p.name}.direction"))


def add_average(p: Value, decay: float) -> None:
    """Make the slot `<parameter>.ema` follow the parameter's next value."""
    b, average = p.builder, slot(p, AVERAGE)
    new = b.value(b.updates[p.name])
    next_value(average, Average(decay), average, new, averaged_so_far(b))


def averaged_so_far(b: Builder) -> Value:
    """Return the counter of averages, which is 0 when the first average is made."""
    return global_state(b, AVERAGES_MADE, COUNTER)


def count_average(b: Builder) -> None:
    """Add the node that adds 1 to the counter of averages."""
    count = averaged_so_far(b)
    b.update(count, add(count, 1, name=next_name(count)))


def clipped_by_value(b: Builder, gradients: Mapping[str, Value], most: float) -> dict[str, Value]:
    """Clip each number of the gradients to the range -most to most."""
    return {
        name: clip(gradient, -most, most, name=b.unique(f"{name}.bounded"))
        for name, gradient in gradients.items()
    }


def clipped_by_norm(b: Builder, gradients: Mapping[str, Value], limit: Value) -> dict[str, Value]:
    """Scale the gradients by min(1, limit/norm), with the norm over all of them together.

    Squares are summed in float64, because squares of float32 overflow and underflow;
    gradients of float64 are divided by the largest number first.
    """
    scaled = gradients
    numbers = [gradient for gradient in gradients.values() if 0 not in gradient.shape]
    if any(gradient.dtype == "float64" for gradient in numbers):  # no dtype is wider
        wide = {name: as_dtype(gradient, "float64") for name, gradient in gradients.items()}
        largest = _largest(b, wide)
        limit = div(as_dtype(limit, "float64"), largest, name=b.unique("clip_norm.scaled"))
        scaled = {
            name: div(gradient, largest, name=b.unique(f"{name}.scaled"))
            for name, gradient in wide.items()
        }
    total: Value | None = None
    for name, gradient in scaled.items():
        part = b.apply(SquareSum(), gradient, name=b.unique(f"{name}.square_sum"))
        total = part if total is None else add(total, part, name=b.unique("square_sum.total"))
    assert total is not None, "an optimizer trains something"
    scales = Casts(b.apply(ClipScale(), total, limit, name=b.unique("clip_scale")))
    return {
        name: mul(gradient, scales.to(gradient.dtype), name=b.unique(f"{name}.clipped"))
        for name, gradient in gradients.items()
    }


def _largest(b: Builder, gradients: Mapping[str, Value]) -> Value:
    """Return the largest absolute value of all gradients, clipped to finite numbers above 0."""
    most: Value | None = None
    for name, gradient in gradients.items():
        if 0 in gradient.shape:
            continue
        part = max_(abs_(gradient), name=b.unique(f"{name}.largest_gradient"))
        most = (
            part if most is None else maximum(most, part, name=b.unique("largest_gradient.total"))
        )
    assert most is not None, "some gradient has a number"
    numbers = np.finfo(np.float64)
    return clip(most, numbers.tiny, numbers.max, name=b.unique("largest_gradient"))


class Casts:
    """A scalar, cast once to each dtype asked for: the parameters of a net may have several."""

    def __init__(self, value: Value) -> None:
        self._known = {value.dtype: value}
        self._value = value

    def to(self, dtype: str) -> Value:
        """Return the scalar in this dtype."""
        if dtype not in self._known:
            self._known[dtype] = cast(self._value, dtype)
        return self._known[dtype]


def with_own_states(graph: Graph, optimizer: Optimizer, others: Container[str] = ()) -> Graph:
    """Return the graph with the optimizer's name added to its states, except to `others`."""
    if not optimizer.name:
        return graph
    made = [n.name for n in graph if n.op.is_state and n.name not in others]
    return _renamed(graph, {name: optimizer.state(name) for name in made}, optimizer.name)


def without_own_states(graph: Graph, optimizer: Optimizer) -> Graph:
    """Return the graph with the optimizer's name removed from its states."""
    end = optimizer.state("")
    named = [n.name for n in graph if end and n.op.role.optimizer == optimizer.name]
    return _renamed(graph, {name: name.removesuffix(end) for name in named}, "")


def _renamed(graph: Graph, names: Mapping[str, str], optimizer: str) -> Graph:
    """Return the graph with states of other names, which belong to the optimizer of that name."""
    if not names:
        return graph

    def of(name: str) -> str:
        return names.get(name, name)

    def op(node: Node) -> Op:
        if node.name not in names or not isinstance(node.op, State):
            return node.op
        return replace(node.op, role=node.op.role._replace(optimizer=optimizer))

    return Graph(
        graph.name,
        [replace(n.reading(names), name=of(n.name), op=op(n)) for n in graph],
        outputs={name: of(value) for name, value in graph.outputs.items()},
        losses=graph.losses,
        gradients={of(name): of(value) for name, value in graph.gradients.items()},
        updates={of(name): of(value) for name, value in graph.updates.items()},
    )
