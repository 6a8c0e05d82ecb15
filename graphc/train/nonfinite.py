"""The guard against NaN and infinity: it repeats steps to find the node where one began."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any, Literal

import numpy as np

from graphc.base.errors import GraphError, NotFiniteError
from graphc.compiler.loss_share import divisors
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ops.loops.op import Scan
from graphc.runtime.entry import run_all
from graphc.runtime.executor import Executor
from graphc.runtime.reference import evaluate, next_state
from graphc.runtime.row_axis import RowAxis
from graphc.train.history import Position
from graphc.train.source import Batch, Source

EVERY = 256
"""The number of steps between two copies.  A step reads and writes every trained number that a copy
reads, so that a copy takes less time than a step, or, for nets of a few units, less than two steps:
all copies take less than 1 % of the time."""


class Guard:
    """A guard of the states that were finite at the start, with a copy of an earlier state."""

    def __init__(self, ex: Executor, source: Source, at: Position) -> None:
        self._ex, self._source = ex, source
        arrays = ex.snapshot()
        floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
        with np.errstate(all="ignore"):
            self._watched = [name for name, array in floats.items() if _is_finite(array)]
        self._copy = arrays
        self._at = replace(at)

    def copy_state(self, at: Position) -> None:
        """Copy the state at this position; it must be finite, for a trace starts there."""
        arrays = self._ex.state.arrays
        writes = [partial(copy.__setitem__, ..., arrays[k]) for k, copy in self._copy.items()]
        self._ex.state.lock(run_all, [*writes, partial(setattr, self, "_at", replace(at))])
        self._source.release(at.epoch, at.step)

    def check_state(self, at: Position) -> None:
        """Raise NotFiniteError, traced, if the state is not finite; `at` is after its last step."""
        if not self._state_is_finite():
            raise self.trace(at, float("nan"))

    def trace(self, at: Position, loss: float) -> NotFiniteError:
        """Return the error for a non-finite number before `at`, or in its step if that gave `loss`.

        The executor is left as it was before the step at fault.
        """
        ex, last = self._ex, replace(at)
        self._source.whole = True  # a trace reads the rows of all ranks
        ex.state = self._copy
        for epoch, step, (rows, feeds) in self._steps_up_to(last):
            before = ex.snapshot()
            made = ex.step(feeds)
            if isfinite(made) and self._state_is_finite():
                continue
            ex.state = before
            origin = _traced(ex, feeds, before)
            return _traced_error(ex, origin, Position(epoch, step), rows, made, self._source)
        ex.state = self._copy
        return _unrepeatable_error(at, loss)

    def _steps_up_to(self, last: Position) -> Iterator[tuple[int, int, Batch]]:
        """Yield the steps from the copy on, the one at `last` included."""
        for epoch in range(self._at.epoch, last.epoch + 1):
            start = self._at.step if epoch == self._at.epoch else 0
            for step, batch in enumerate(self._source.batches(epoch, start), start):
                if epoch == last.epoch and step > last.step:
                    return
                yield epoch, step, batch

    def _state_is_finite(self) -> bool:
        arrays = self._ex.state.arrays
        with np.errstate(all="ignore"):
            return all(_is_finite(arrays[name]) for name in self._watched)


def _is_finite(array: Array) -> bool:
    """Return whether all numbers are finite; then their sum is, too, unless it is too large."""
    return isfinite(np.add.reduce(array, axis=None)) or bool(np.isfinite(array).all())


Part = Literal["forward", "backward", "update"]


@dataclass(frozen=True)
class Origin:
    """The node where non-finite values began, and the values that it read and computed.

    `sure` is false if the reference rules stay finite, because they round differently: then it
    is the node with the largest values.
    """

    graph: Graph
    node: Node
    part: Part
    values: Mapping[str, Array]
    sure: bool = True
    loops: tuple[tuple[str, int], ...] = ()
    """The loops that the node is in, the outermost first, and the positions of their steps."""


def _traced(ex: Executor, feeds: Mapping[str, Any], state: Mapping[str, Array]) -> Origin:
    """Return the origin in a step on these feeds from this state.

    It interprets the graph of the step from before fusion: the nodes that the user declared, their
    gradients, and the updates.
    """
    arrays, n = ex.rows(ex.padded(feeds), train=True)
    graph, values = step_by_reference(ex.plan, arrays, state, n)
    runs = [(graph, values)]
    with np.errstate(all="ignore"):
        after = {**state, **next_state(graph, values, _states_of(graph, state))}
        if ex.plan.accumulate > 1 and int(after[ex.plan.step_counter]) >= ex.plan.accumulate:
            apply = ex.plan.graphs["apply"][0].graph
            runs.append((apply, evaluate(apply, {}, _states_of(apply, after), 1)))
    for made, known in runs:
        losses = [made.outputs[name] for name in made.losses]
        node = _first_bad(made, known, [*losses, *made.updates.values()])
        if node is not None:
            return _within(Origin(made, node, part_of_step(ex.plan, node.name), known))
    node = max((node for node in graph if node.inputs), key=lambda node: _size(values[node.name]))
    return Origin(graph, node, part_of_step(ex.plan, node.name), values, sure=False)


def step_by_reference(
    plan: Plan, arrays: Mapping[str, Array], state: Mapping[str, Array], n: int
) -> tuple[Graph, dict[str, Array]]:
    """Return the graph of a step from before fusion, and its values by reference rules.

    The rows are one shard: its first row is 0, and its divisors are those of weighted means.
    """
    graph = graph_after(plan, "update")
    types = {node.name: node.type for node in graph if node.op.is_of_shard}
    feeds = dict(arrays)
    feeds |= {name: np.asarray(type.is_float, type.dtype) for name, type in types.items()}
    for divisor in divisors(plan.declared) if types else ():
        if divisor.name in types:
            feeds[divisor.name] = np.asarray(divisor(arrays, n, state), types[divisor.name].dtype)
    with np.errstate(all="ignore"):
        return graph, evaluate(graph, feeds, _states_of(graph, state), n)


def _within(origin: Origin) -> Origin:
    """Return the origin in the step of a loop where it began, if the node is a loop."""
    op = origin.node.op
    if not isinstance(op, Scan):
        return origin
    ins = [origin.values[name] for name in origin.node.inputs]
    graph = op.step.graph(() if op.kind == "last" else (op.result,))
    with np.errstate(all="ignore"):
        for t, values in op.runs(ins):
            node = _first_bad(graph, values, graph.outputs.values(), op.step.inputs)
            if node is not None:
                loops = (*origin.loops, (origin.node.name, t))
                found = replace(origin, graph=graph, node=node, values=values, loops=loops)
                return _within(found)
    return origin


def _first_bad(
    graph: Graph, values: Mapping[str, Array], ends: Iterable[str], given: Container[str] = ()
) -> Node | None:
    """Return the first node with a value that is not finite and reaches one of the ends.

    An infinity from a constant of the net, such as that of a mask, or from a value that is given,
    is intended, and so are the values that follow from it, until they become NaN.
    """
    needed = graph.upstream(ends)
    meant: set[str] = set()
    for node in graph:
        array = values[node.name]
        if node.name not in needed or array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        begun = node.op.is_constant or node.name in given
        inherited = begun or not meant.isdisjoint(node.inputs)
        if inherited and not np.isnan(array).any():
            # It follows from an infinity that the user wrote, such as that of a mask.
            meant.add(node.name)
        else:
            return node
    return None


def step_program(plan: Plan) -> str:
    """Return the name of the program that runs at every step."""
    return "accumulate" if plan.accumulate > 1 else "step"


def graph_after(plan: Plan, name: str) -> Graph:
    """Return the graph of a step after the pass of that name ran for the first time."""
    for record in plan.graphs[step_program(plan)]:
        if record.name == name:
            return record.graph
    raise GraphError(f"the plan has no record of the pass {name!r}")


def part_of_step(plan: Plan, name: str) -> Part:
    """Return the part of a step that a node belongs to, by the pass that made it."""
    if name in graph_after(plan, "specialize"):
        return "forward"
    return "backward" if name in graph_after(plan, "backward") else "update"


def _states_of(graph: Graph, state: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in state.items() if name in graph}


def _size(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0)) if array.dtype.kind == "f" else 0.0


_PARTS = {"forward": "forward pass", "backward": "backward pass", "update": "update"}

_GROWN = "numbers have grown too large: a smaller lr, or clip_norm= in the optimizer"
_SLOPE = "the derivative is infinite or undefined here: keep its operands away from that point"


def _traced_error(
    ex: Executor, origin: Origin, at: Position, rows: int, loss: float, source: Source
) -> NotFiniteError:
    """Return the error for a repeated step: the node, its operands, the user's line."""
    node, values = origin.node, origin.values
    what = f"loss is {loss:g} in" if not isfinite(loss) else "the state is not finite after"
    begun = f"{what} epoch {at.epoch}, step {at.step + 1}: {_node_phrase(origin)} "
    if origin.sure:
        array = values[node.name]
        begun += f"is the first value that is not finite, {_bad_text(array)} of {array.size}"
        place = _place(origin, at, source)
    else:
        begun += "has the largest values, which overflow where the plan rounds them"
        place = ""
    roles = [
        *node.op.roles,
        *(f"operand {i + 1}" for i in range(len(node.op.roles), len(node.inputs))),
    ]
    named = [(role, origin.graph[name]) for role, name in zip(roles, node.inputs, strict=False)]
    operands = [
        replace(operand.described(role), described=described(values[operand.name]))
        for role, operand in named or [("value", node)]
    ]
    loc = node.described("value").loc
    return NotFiniteError(begun + place, operands=operands, loc=loc, hint=_hint(origin))


def _unrepeatable_error(at: Position, loss: float) -> NotFiniteError:
    """Return the error for steps that stay finite when repeated: their batches were different."""
    what = "the state" if isfinite(loss) else f"the loss {loss:g}"
    return NotFiniteError(
        f"{what} is not finite by epoch {at.epoch}, step {at.step + 1}, but all is finite when "
        "the steps are run again",
        hint="a function that makes batches must give the same ones for the same epoch",
    )


def described(array: Array) -> str:
    """Return an array's type, range and mean, and its counts of zeros, NaN and infinities."""
    text = f"{array.dtype.name}{list(array.shape)}"
    if array.dtype.kind == "f":
        finite: Array = array[np.isfinite(array)].astype(np.float64)
    else:
        finite = array.reshape(-1).astype(np.float64)
    if finite.size == 1 and array.size == 1:
        return f"{text} is {finite[0]:.4g}"
    if finite.size:
        text += f" from {finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
    zeros = int(np.count_nonzero(finite == 0))
    bad = _bad_text(array)
    return text + (f", {zeros} zeros" if zeros else "") + (f", {bad}" if bad else "")


def _bad_text(array: Array) -> str:
    if array.dtype.kind != "f":
        return ""
    counts = {
        "nan": np.isnan(array).sum(),
        "inf": np.isposinf(array).sum(),
        "-inf": np.isneginf(array).sum(),
    }
    return " and ".join(f"{count} {word}" for word, count in counts.items() if count)


def _node_phrase(origin: Origin) -> str:
    node = origin.node
    text = f"{node.op.name} {node.name!r}"
    if node.op.is_input or node.op.persistent:
        return text
    places = "".join(f" at position {t} of loop {name!r}" for name, t in reversed(origin.loops))
    return f"{text}{places} of the {_PARTS[origin.part]}"


def _place(origin: Origin, at: Position, source: Source) -> str:
    """Return, for data, the row of the first bad number, in the batch and in the data."""
    node = origin.node
    if not node.op.is_input:
        return ""
    axis = RowAxis.of(node.type)
    if axis is None:
        return ""
    first = np.argwhere(~np.isfinite(origin.values[node.name]))[0][axis.axis]
    row = int(first) // axis.factor
    data = source.row(at.epoch, at.step, row)
    return f"; row {row} of the batch" + (f", row {data} of the data" if data is not None else "")


def _hint(origin: Origin) -> str:
    node = origin.node
    if node.op.is_input:
        return f"clean the data: np.isfinite({node.name}) is false there"
    if node.op.persistent:
        return "it was not finite before the step either: assign finite values"
    if not origin.sure or _large(origin):
        return _GROWN
    if origin.part == "backward":
        return _SLOPE
    return node.op.finite_hint if origin.part == "forward" else _GROWN


def _large(origin: Origin) -> bool:
    """Return whether the operands are so large that their product is not finite."""
    if origin.node.op.name == "exp":
        return False
    floats = [origin.values[name] for name in origin.node.inputs]
    floats = [array for array in floats if array.dtype.kind == "f"]
    limit = min((float(np.sqrt(np.finfo(array.dtype).max)) for array in floats), default=np.inf)
    return any(float(np.abs(array).max(initial=0)) > limit * 1e-3 for array in floats)
