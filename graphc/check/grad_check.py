"""`grad_check`: compares all gradients of a net with central differences in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import Loc
from graphc.check.central_differences import (
    Entry,
    Function,
    WrongEntry,
    checked_steps,
    compare,
    first_wrong_rule,
    in_float64,
    indices,
)
from graphc.compiler.index_bounds import index_bounds
from graphc.declare.net import Net, declared_graph
from graphc.features.loops.sequences import Sequences
from graphc.ir.build import Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.runtime.feeds import Feed, FeedCheck
from graphc.runtime.reference import evaluate, initial_state
from passes.backward import Backward
from passes.specialize import Specialize


@dataclass(frozen=True)
class Checked:
    """The findings about one parameter or input."""

    name: str
    kind: str
    loc: Loc | None
    size: int
    entries: tuple[Entry, ...]

    @property
    def worst(self) -> Entry:
        """The entry with the largest error."""
        return max(self.entries, key=lambda entry: entry.error)

    @property
    def sampled(self) -> bool:
        """True if only a sample of the entries was checked."""
        return len(self.entries) < self.size


@dataclass(frozen=True)
class Suspect:
    """An op whose gradient rule is not confirmed by central differences."""

    node: Node
    wrong: WrongEntry

    def __str__(self) -> str:
        return (
            f"the gradient rule of {self.node.op.name} {self.node.name!r} is wrong: "
            f"{self.wrong}{_declared(self.node.loc)}"
        )


@dataclass(frozen=True)
class GradReport:
    """The result of `grad_check`, whose text is a table with a line for each array.

    Examples
    --------
    >>> net = gc.Net("small")
    >>> _ = net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 3)), 2)))
    >>> report = gc.grad_check(net, {"x": np.ones((4, 3))}, wrt=["x"])
    >>> report.ok, report.worst.name
    (True, 'x')
    """

    net: str
    """The name of the net."""
    checked: tuple[Checked, ...]
    """The findings about each parameter and input that was checked."""
    unreached: tuple[str, ...]
    """The names on which no loss depends."""
    h: float
    """The step of the differences."""
    tolerance: float
    """The largest relative error that passes."""
    suspect: Suspect | None = None
    """If gradients disagree, the first op whose own rule is wrong for its operands' values."""

    @property
    def ok(self) -> bool:
        """Return whether every entry agrees within the tolerance."""
        return all(item.worst.error <= self.tolerance for item in self.checked)

    @property
    def worst(self) -> Checked:
        """The parameter or input with the largest error."""
        return max(self.checked, key=lambda item: item.worst.error)

    def __str__(self) -> str:
        lines = [self._headline()]
        width = max(len(item.name) for item in self.checked)
        for item in self.checked:
            mark = " " if item.worst.error <= self.tolerance else "x"
            count = f"{len(item.entries)} of {item.size} entries" if item.sampled else "all entries"
            error = f"error {item.worst.error:.1e}" if item.worst.error else "within rounding"
            lines.append(f"{mark} {item.name:<{width}}  {error:<15}  {count}")
        if self.unreached:
            lines.append(f"  no loss depends on {', '.join(self.unreached)}")
        return "\n".join(lines)

    def _headline(self) -> str:
        """Return the first lines: whether all agree, or the worst entry."""
        how = f"central differences in float64, h = {self.h:g}"
        if self.ok:
            return f"grad_check {self.net!r}: ok, {len(self.checked)} gradients agree with {how}"
        bad = sum(item.worst.error > self.tolerance for item in self.checked)
        item, entry = self.worst, self.worst.worst
        text = (
            f"grad_check {self.net!r}: {bad} of {len(self.checked)} gradients disagree with {how}\n"
            f"worst: {item.kind} {item.name!r} at {list(entry.index)}: {entry.ours:.10g} by the "
            f"rules, {entry.numeric:.10g} by differences (error {entry.error:.1e}, "
            f"at most {self.tolerance:.0e}){_declared(item.loc)}"
        )
        return text if self.suspect is None else f"{text}\n{self.suspect}"


def _declared(loc: Loc | None) -> str:
    if loc is None:
        return ""
    return f"\n  declared at {loc}{': ' if loc.text else ''}{loc.text}"


# ------------------------------------------------------------------ the check

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
    """Compare the gradients of a net's losses with central differences, in training mode.

    The graph is rebuilt in float64, whatever the net's dtype.  Dropout masks stay fixed.

    Parameters
    ----------
    net
        A net or a graph with at least one loss.
    feeds
        An array for each input, by name.
    h
        The step of the differences, relative to entries above 1.
    tolerance
        The largest relative error of an entry that passes.
    wrt
        The parameters and float inputs to check, or their names; all by default.  Of an array
        with more than 50 entries, 50 are checked, always the same.
    state
        Values of parameters and states, such as `ex.state`; others have their initial values.
    seed
        The seed of the initial values.

    Returns
    -------
    GradReport
        Its text names the worst entry and the op whose rule is wrong.

    Raises
    ------
    GraphError
        If there is no net, or it has no loss, if `wrt` names something other than a float
        parameter or input, if no loss depends on any of them, or if `h` or `tolerance` is not a
        number above 0.
    FeedError
        If an array of `feeds` does not fit its input.

    Examples
    --------
    >>> net = gc.Net("small")
    >>> _ = net.loss("loss", gc.mean(gc.tanh(gc.affine(net.input("x", (gc.N, 3)), 2))))
    >>> print(gc.grad_check(net, {"x": np.ones((4, 3))}, wrt=["x"]))
    grad_check 'small': ok, 1 gradients agree with central differences in float64, h = 1e-05
      x  within rounding  all entries
    """
    h, tolerance = checked_steps("grad_check", h, tolerance)
    declared = declared_graph("grad_check", net)
    graph = Specialize(train=True)(in_float64(declared))
    names = _targets(graph, wrt)
    arrays, rows = _arrays(graph, feeds, state or {}, seed)
    reached = _reached(graph, names)
    graph = Backward(losses=graph.losses, wrt=reached)(graph)
    values = evaluate(graph, arrays, arrays, rows)
    checked = tuple(_check(graph, name, values, rows, h, tolerance) for name in reached)
    unreached = tuple(name for name in names if name not in reached)
    report = GradReport(declared.name, checked, unreached, h, tolerance)
    return report if report.ok else replace(report, suspect=_suspect(graph, values, rows))


def _check(
    graph: Graph, name: str, values: Mapping[str, Array], rows: int, h: float, tolerance: float
) -> Checked:
    """Compare the gradient of the sum of the losses by one array with differences."""
    weights = [(graph.outputs[loss], 1.0) for loss in graph.losses]
    loss = Function(graph, values, rows, name, weights)
    node, x = graph[name], np.array(values[name])
    gradient = values[graph.gradients[name]] if name in graph.gradients else np.zeros_like(x)
    entries = tuple(
        compare(lambda: loss(x), x, index, float(gradient[index]), h, tolerance)
        for index in indices(x.shape, name, LIMIT)
    )
    kind = "input" if node.op.is_input else "parameter"
    return Checked(name, kind, node.loc, x.size, entries)


def _suspect(graph: Graph, values: Mapping[str, Array], rows: int) -> Suspect | None:
    """Return the first op before the losses whose own rule is wrong."""
    needed = graph.upstream(graph.outputs[name] for name in graph.losses)
    found = first_wrong_rule((node for node in graph if node.name in needed), values, rows)
    return found and Suspect(*found)


def _targets(graph: Graph, wrt: Sequence[str | Value] | None) -> tuple[str, ...]:
    """Return the names to check; raise GraphError without a loss, or for other names."""
    if not graph.losses:
        raise GraphError(
            f"grad_check: net {graph.name!r} has no loss",
            hint="declare one: net.loss('loss', value)",
        )
    floats = (node for node in graph if node.type.is_float)
    able = [node.name for node in floats if (node.op.is_parameter or node.op.is_input)]
    if wrt is None:
        return tuple(able)
    names = tuple(item.name if isinstance(item, Value) else item for item in wrt)
    for name in names:
        if name not in able:
            raise GraphError(
                f"grad_check: {name!r} is not a float parameter or input",
                hint=f"there are {', '.join(able)}",
            )
    return names


def _reached(graph: Graph, names: Sequence[str]) -> tuple[str, ...]:
    """Return, in the given order, the names that a gradient of the losses flows to."""
    seen = {graph.outputs[name] for name in graph.losses}
    for node in reversed(list(graph)):  # operands precede their users
        if node.name in seen and node.type.is_float and not node.op.stops_gradients:
            seen.update(node.inputs)
    found = tuple(name for name in names if name in seen)
    if not found:
        what = ", ".join(names) or "anything that could be checked"
        raise GraphError(f"grad_check: no loss of net {graph.name!r} depends on {what}")
    return found


def _arrays(
    graph: Graph, feeds: Mapping[str, Any], state: Mapping[str, Any], seed: int
) -> tuple[dict[str, Array], int]:
    """Return new arrays of every input and state, and the rows; raise FeedError for misfits."""
    arrays = initial_state(graph, seed)
    for name in arrays.keys() & state.keys():
        arrays[name] = np.array(state[name], graph[name].type.dtype)
    bounds = index_bounds(graph)
    inputs = {node.name: Feed(node, bounds.get(node.name)) for node in graph if node.op.is_input}
    fed, rows = FeedCheck(inputs, 1).arrays(Sequences(graph).whole(feeds), limit=False)
    arrays.update({name: np.array(array) for name, array in fed.items()})
    return arrays, rows
