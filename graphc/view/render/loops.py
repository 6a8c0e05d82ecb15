"""A graph as pictures show it: with the nodes of its loops' steps in it, each drawn once.

    y = scan(x, h0, w)       ->    loop/x = x[t],  loop/h = h0 or the step before's loop/tanh_1
    step: tanh_1 = tanh(x + h @ w)     loop/tanh_1 = tanh(...),  y = all of loop/tanh_1

The names of a step's nodes are paths below the loop's name: the frame around them.  Loops that
passes made of a declared one, its gradient among them, are in its frame.  What one of them keeps
for another is read there, without the array of all steps between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.step_graph import Kind, StepGraph
from graphc.ops.loops.op import Scan, loops
from graphc.ops.shape import Reshape
from graphc.view.render.layers import known_prefix
from passes.split_scans import runs_at_once

GRADIENT = "d_"
ARRIVING = ".next"
"""The end of the name of a carried gradient, which that of a carried value starts."""


@dataclass(frozen=True)
class SliceAtStep(Op):
    """The slice of a sequence that a step reads."""

    name = "x[t]"
    roles = ("sequence",)


@dataclass(frozen=True)
class CarriedValue(Op):
    """The value that the step before computed; at the first step its operand."""

    name = "carried"
    roles = ("initial",)


@dataclass(frozen=True)
class Position(Op):
    """The position of the step."""

    name = "t"


@dataclass(frozen=True)
class AllSteps(Op):
    """The values of all steps."""

    name = "all steps"
    steps: int


@dataclass(frozen=True)
class LastStep(Op):
    """The value after the last step."""

    name = "last step"
    steps: int


@dataclass(frozen=True)
class SumOfSteps(Op):
    """The sum over all steps."""

    name = "sum of steps"
    steps: int


_RESULTS: Mapping[Kind, type[AllSteps | LastStep | SumOfSteps]] = {
    "stacked": AllSteps,
    "last": LastStep,
    "sum": SumOfSteps,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A loop as it was declared: what its frame says, and how names in its step map to others."""

    steps: int
    reverse: bool
    whole: Mapping[str, str]
    nexts: Mapping[str, str]
    """The next value of each carried value, by their names in the step."""
    segments: int = 1
    """The number of segments that it runs in, each a loop in the step of a loop over segments."""

    @property
    def text(self) -> str:
        """The number of steps, and what is unusual about them."""
        cut = f" in {self.segments:,} segments" if self.segments > 1 else ""
        return f"{self.steps:,} steps{cut}{', last first' * self.reverse}"


@dataclass(frozen=True)
class Opened:
    """A graph whose loops are opened."""

    graph: Graph
    frames: Mapping[str, Frame] = field(default_factory=dict)
    """The frame of each loop, by its path."""
    results: Mapping[str, str] = field(default_factory=dict)
    """The path of the loop of each result."""
    carried: tuple[tuple[str, str], ...] = ()
    """The node of each next value, and that of the value it becomes in the next step."""
    at_once: frozenset[str] = frozenset()
    """The nodes that are computed for all steps at once, before or after the loop."""

    def upstream(self, names: Iterable[str]) -> set[str]:
        """Return the named nodes and all that they depend on, through the steps before too."""
        found = self.graph.upstream(names)
        while more := {after for after, before in self.carried if before in found} - found:
            found = self.graph.upstream(found | more)
        return found

    def forward(self) -> set[str]:
        """Return the nodes that the outputs need."""
        return self.upstream(self.graph.outputs.values()) if self.graph.outputs else set()

    def steps_of(self, name: str) -> int:
        """Return for how many steps a value is kept: the product of those of the loops around it.

        Of a loop in segments one segment is kept, which the gradient recomputes.
        """
        count, path = 1, _bare(name).rpartition("/")[0]
        while path:
            frame = self.frames.get(path)
            count *= 1 if frame is None else frame.steps // frame.segments
            path = path.rpartition("/")[0]
        return count

    def joined(self) -> Mapping[str, str]:
        """Return, for each result of a loop but its first one, that first one."""
        firsts: dict[str, str] = {}
        found = {name: firsts.setdefault(path, name) for name, path in self.results.items()}
        return {name: first for name, first in found.items() if name != first}


def opened(graph: Graph, declared: Opened | None = None) -> Opened:
    """Return a graph with its loops opened; `declared` is the net of which it was compiled."""
    return _Opening(graph, declared or Opened(graph)).opened() if loops(graph) else Opened(graph)


class _Opening:
    """The nodes and frames found so far, by their names in the opened graph."""

    def __init__(self, graph: Graph, declared: Opened) -> None:
        self.graph, self.declared = graph, declared
        self.nodes: dict[str, Node] = {}
        self.frames: dict[str, Frame] = {}
        self.results: dict[str, tuple[str, str]] = {}
        """The path of the loop of each result, and the node whose values it collects."""
        self.carried: list[tuple[str, str]] = []
        self.at_once: set[str] = set()
        self.passed: set[str] = set()
        """The results that another loop of the same frame reads directly."""
        self.shaped: dict[str, str] = {}
        """Sequences cut into blocks of steps, and the sequences."""
        self.slices: dict[tuple[str, str], str] = {}
        """The slice of a sequence in a frame."""

    def opened(self) -> Opened:
        """Return the graph, without the results that only loops of their own frame read."""
        self._add_all(self.graph, "", {})
        hidden = self._hidden()
        results = {name: path for name, (path, _) in self.results.items() if name not in hidden}
        nodes = (node for node in self.nodes.values() if node.name not in hidden)
        graph = self.graph.with_nodes(nodes)
        return Opened(graph, self.frames, results, tuple(self.carried), frozenset(self.at_once))

    def _hidden(self) -> set[str]:
        """Return the nodes that only loops of their own frame read, which pass them by."""
        read, hidden = set(self.graph.roots), set()
        for name, node in reversed(self.nodes.items()):
            if name in self.passed and name not in read:
                hidden.add(name)
            else:
                read.update(node.inputs)
        return hidden

    def _add_all(self, nodes: Iterable[Node], path: str, names: dict[str, str]) -> None:
        """Add the nodes of a graph or a step; `names` has the new names of those known."""
        some = list(nodes)
        groups = {node.name: group for group in loops(some).values() for node in group}
        values: dict[str, tuple[str, dict[str, str]]] = {}
        for node in some:
            if node.name in names:
                continue
            group = groups.get(node.name)
            if group is None:
                inputs = tuple(names[name] for name in node.inputs)
                name = self._put(node, self._placed(path, node, inputs), node.op, inputs)
                if isinstance(node.op, Reshape):
                    self.shaped[name] = self.shaped.get(inputs[0], inputs[0])
                names[node.name] = name
                continue
            first = group[0].name
            if first not in values:
                values[first] = self._open(group, path, names)
            names[node.name] = self._add_result(node, path, *values[first])

    def _put(self, node: Node, name: str, op: Op, inputs: tuple[str, ...]) -> str:
        """Add a node under a name, unless it is there: parts of a loop may have equal constants."""
        base, number, known = name, 1, self.nodes.get(name)
        while known is not None and (known.op, known.inputs) != (op, inputs):
            number += 1
            name = f"{base}.{number}"
            known = self.nodes.get(name)
        self.nodes.setdefault(name, Node(name, op, inputs, node.type, node.locs, node.recomputes))
        return name

    def _named(self, path: str, name: str) -> str:
        """Return the name of a step's node; a gradient of an outer value is named after that."""
        if not path:
            return name
        bare = _bare(name)
        marks, whole = name[: len(name) - len(bare)], self.frames[path].whole
        outer = known_prefix(bare, whole) if marks else ""
        if outer:
            return f"{marks}{whole[outer]}{bare[len(outer) :]}.step"
        # The gradient of a carried value arrives where its next value is computed.
        before = bare.removesuffix(ARRIVING)
        if marks and bare.endswith(ARRIVING) and before in self.frames[path].nexts:
            bare = f"{self.frames[path].nexts[before]}{ARRIVING}"
        return f"{marks}{path}/{bare}"

    def _placed(self, path: str, node: Node, inputs: Sequence[str]) -> str:
        """Return the name of a step's node, after its operand if that alone tells its layer.

        So it is for sums of gradients.
        """
        name = self._named(path, node.name)
        known = not path or name.startswith(GRADIENT) or not self.declared.results
        if known or not inputs or not inputs[0].startswith(GRADIENT):
            return name
        return name if known_prefix(name, self.declared.graph) else f"{inputs[0]}.{node.name}"

    def _add_result(self, node: Node, path: str, frame: str, found: Mapping[str, str]) -> str:
        """Add a result of a loop; `found` has the new names of the nodes of its step."""
        op = node.op
        assert isinstance(op, Scan), "the results of a loop"
        nexts = {one.input: one.next for one in op.step.carried}
        value = found[nexts[op.result] if op.kind == "last" else op.result]
        name = self._placed(path, node, (value,))
        name = self._put(node, name, _RESULTS[op.kind](op.steps), (value,))
        self.results[name] = frame, value
        return name

    def _open(
        self, group: Sequence[Node], path: str, names: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        """Add the nodes of a step; return the frame, and the new names of the nodes."""
        ops = [node.op for node in group if isinstance(node.op, Scan)]
        step = ops[0].step
        given = dict(zip(step.inputs, (names[name] for name in group[0].inputs), strict=True))
        frame = self._frame(group, path, given)
        found = {name: given[name] for name in step.whole}
        known = self.frames.get(frame) or self.declared.frames.get(frame)
        known = known or _frame_of(ops[0], found)
        # Sums are cut into segments, too, but carry nothing: they say nothing about the loop.
        if step.carried and frame != path and ops[0].steps < known.steps:
            known = replace(known, segments=ops[0].steps)
        self.frames[frame] = known
        graph = step.graph(op.result for op in ops)
        needed = graph.upstream(graph.outputs)
        nodes = [node for node in graph if node.name in needed]
        before = len(self.nodes)
        for node in nodes:
            if node.op.is_input and node.name not in found:
                found[node.name] = self._add_input(node, frame, step, given.get(node.name, ""))
        self._add_all(nodes, frame, found)
        self.carried += [(found[x.next], found[x.input]) for x in step.carried if x.input in found]
        if runs_at_once(step, ops):
            self.at_once.update(list(self.nodes)[before:])
        return frame, found

    def _add_input(self, node: Node, frame: str, step: StepGraph, operand: str) -> str:
        """Add an input of a step, unless it is what a loop of the same frame computes there."""
        name = self._named(frame, node.name)
        if node.name == step.number:
            return self._put(node, name, Position(), ())
        if node.name not in step.sequences:
            return self._put(node, name, CarriedValue(), (operand,))
        source = self.shaped.get(operand, operand)
        path, inner = self.results.get(source, ("", ""))
        if path != frame or not isinstance(self.nodes[source].op, AllSteps):
            inner = self.slices.get((frame, source), "")
        if inner and operand != source and self.nodes[inner].type != node.type:
            return operand  # a block of steps, of which a loop inside this one reads slices
        if inner and self.nodes[inner].type == node.type:
            self.passed.update((operand, source))
            return inner
        self.slices[frame, source] = self._put(node, name, SliceAtStep(), (operand,))
        return self.slices[frame, source]

    def _is_of(self, frame: str, name: str, operand: str) -> bool:
        """Return whether an operand has the values of all steps of what a frame has by a name."""
        source = self.shaped.get(operand, operand)
        return self.results.get(source) == (frame, self._named(frame, name))

    def _frame(self, group: Sequence[Node], path: str, given: Mapping[str, str]) -> str:
        """Return the path of a loop: that of the declared loop it was made of, or else its own.

        It was made of the same loop as one that kept a value for it, or else as one that gives it
        a gradient.
        """
        op, around = group[0].op, self.frames.get(path)
        assert isinstance(op, Scan), "the results of a loop"
        if around is not None and op.steps * around.segments == around.steps > op.steps:
            return path
        sources = {name: self.shaped.get(operand, operand) for name, operand in given.items()}
        frames = {name: self.results.get(x, ("", ""))[0] for name, x in sources.items()}
        for name, frame in frames.items():
            if frame and self._is_of(frame, name, given[name]):
                return frame
        for name, frame in frames.items():
            if frame and name.startswith(GRADIENT):
                return frame
        names = [self._named(path, node.name) for node in group]
        for name in names:
            origin = known_prefix(_bare(name), self.declared.results)
            if origin:
                return self.declared.results[origin]
        own = names[0].rpartition(".")[0] or names[0]
        return own if own not in self.frames else names[0]


def _frame_of(op: Scan, whole: Mapping[str, str]) -> Frame:
    nexts = {one.input: one.next for one in op.step.carried}
    return Frame(op.steps, op.reverse, dict(whole), nexts)


def _bare(name: str) -> str:
    """Return a name without the marks of gradients."""
    while name.startswith(GRADIENT):
        name = name[len(GRADIENT) :]
    return name
