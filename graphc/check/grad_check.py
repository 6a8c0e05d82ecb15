"""A check of every gradient of a net against central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.check.differences import compare, indices
from graphc.check.float64 import in_float64
from graphc.check.grad_report import Checked, GradReport, Suspect
from graphc.check.op_gradient import wrong_entries
from graphc.compiler.index_bounds import index_bounds
from graphc.ir.build import Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ops.shape import StopGradient
from graphc.ops.source import Input, Parameter
from graphc.runtime.feeds import Feed, FeedCheck
from graphc.runtime.reference import evaluate, initial_state

if TYPE_CHECKING:
    from graphc.declare.net import Net

LIMIT = 50
"""The most entries of one array that are checked."""


def grad_check(
    net: Net | Graph,
    feeds: Mapping[str, Any],
    *,
    h: float = 1e-5,
    tolerance: float = 1e-6,
    wrt: Sequence[str | Value] | None = None,
    state: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> GradReport:
    """Compare the gradients of the net's losses with central differences, in training mode.

    Every parameter and float input is checked, or those named by `wrt`: all entries of arrays up to
    50, and 50 of a larger one, always the same.  The graph is rebuilt in float64, whatever the
    net's dtype; dropout masks stay fixed.  Parameters have their initial values for `seed`,
    replaced by those in `state` (`ex.state` of a trained executor, for instance).  Raise GraphError
    if the net has no loss, if a name in `wrt` is not a float parameter or input, or if no loss
    depends on any of them.
    """
    from passes.backward import Backward
    from passes.specialize import Specialize

    declared = net if isinstance(net, Graph) else net.graph()
    if not declared.losses:
        raise GraphError(
            f"grad_check: net {declared.name!r} has no loss",
            loc=caller_loc(),
            hint="declare one: net.loss('loss', value)",
        )
    graph = Specialize(train=True)(in_float64(declared))
    names = _targets(graph, wrt)
    arrays, rows = _arrays(graph, feeds, state or {}, seed)
    reached = _reached(graph, names)
    if not reached:
        what = ", ".join(names) or "anything that could be checked"
        raise GraphError(
            f"grad_check: no loss of net {declared.name!r} depends on {what}",
            loc=caller_loc(),
        )
    graph = Backward(losses=graph.losses, wrt=reached)(graph)
    values = evaluate(graph, arrays, arrays, rows)
    loss = _Loss(graph, arrays, values, rows)
    checked = tuple(
        _check(graph[name], loss, values[graph.gradients[name]], h, tolerance) for name in reached
    )
    unreached = tuple(name for name in names if name not in reached)
    report = GradReport(declared.name, checked, unreached, h, tolerance)
    return report if report.ok else replace(report, suspect=_suspect(loss.graph, values, rows))


def _targets(graph: Graph, wrt: Sequence[str | Value] | None) -> tuple[str, ...]:
    able = [
        node.name
        for node in graph
        if isinstance(node.op, (Parameter, Input)) and node.type.is_float
    ]
    if wrt is None:
        return tuple(able)
    names = tuple(item.name if isinstance(item, Value) else item for item in wrt)
    for name in names:
        if name not in able:
            raise GraphError(
                f"grad_check: {name!r} is not a float parameter or input",
                loc=caller_loc(),
                hint=f"there are {', '.join(able)}",
            )
    return names


def _reached(graph: Graph, names: Sequence[str]) -> tuple[str, ...]:
    """Return, in the given order, the names that a gradient of the losses flows to."""
    seen: set[str] = set()
    stack = [graph.outputs[name] for name in graph.losses]
    while stack:
        node = graph[stack.pop()]
        if node.name not in seen and node.type.is_float:
            seen.add(node.name)
            if not isinstance(node.op, StopGradient):
                stack.extend(node.inputs)
    return tuple(name for name in names if name in seen)


def _arrays(
    graph: Graph, feeds: Mapping[str, Any], state: Mapping[str, Any], seed: int
) -> tuple[dict[str, Array], int]:
    """Return our own arrays of every input and state, and the rows; raise FeedError for misfits."""
    arrays = initial_state(graph, seed)
    for name in arrays.keys() & state.keys():
        arrays[name] = np.array(state[name], graph[name].type.dtype)
    bounds = index_bounds(graph)
    inputs = {
        node.name: Feed(node, bounds.get(node.name)) for node in graph if isinstance(node.op, Input)
    }
    fed, rows = FeedCheck(inputs, frozenset(inputs), 1).arrays(feeds, limit=False)
    arrays.update({name: np.array(array) for name, array in fed.items()})
    return arrays, rows


class _Loss:
    """The sum of the losses as a function of arrays that are changed in place.

    The results of stop_gradient stay as they were, which is its meaning for a derivative.
    """

    def __init__(
        self, graph: Graph, arrays: dict[str, Array], values: Mapping[str, Array], rows: int
    ) -> None:
        self.arrays, self.rows = arrays, rows
        self.losses = [graph.outputs[name] for name in graph.losses]
        needed = graph.upstream(self.losses)
        nodes = [_frozen(node) for node in graph if node.name in needed]
        self.graph = Graph(graph.name, nodes)
        stopped = (node.name for node in graph if isinstance(node.op, StopGradient))
        self.feeds = arrays | {name: values[name] for name in stopped}

    def __call__(self) -> float:
        values = evaluate(self.graph, self.feeds, self.feeds, self.rows)
        return float(sum(values[name] for name in self.losses))


def _frozen(node: Node) -> Node:
    if not isinstance(node.op, StopGradient):
        return node
    return Node(node.name, Input(node.type.shape, node.type.dtype), (), node.type, node.locs)


def _check(node: Node, loss: _Loss, gradient: Array, h: float, tolerance: float) -> Checked:
    array = loss.arrays[node.name]
    f: Callable[[], float] = loss
    entries = tuple(
        compare(f, array, index, float(gradient[index]), h, tolerance)
        for index in indices(array.shape, node.name, LIMIT)
    )
    kind = "input" if isinstance(node.op, Input) else "parameter"
    return Checked(node.name, kind, node.locs[0] if node.locs else None, array.size, entries)


def _suspect(graph: Graph, values: Mapping[str, Array], rows: int) -> Suspect | None:
    """Return the first op on the way to the losses whose rule is wrong for its operands' values."""
    for node in graph:
        ins = [values[name] for name in node.inputs]
        if any(array.dtype == np.float64 for array in ins):
            for wrong in wrong_entries(node.op.at(rows), ins, limit=10):
                return Suspect(node, wrong)
    return None
