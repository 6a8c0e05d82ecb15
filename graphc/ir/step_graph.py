"""The graph of one step of a loop, and how its inputs get their values.

An input of the step is one of these:

    sequence   a slice of an operand at each step
    carried    an initial value, and then what the step before computed as its next value
    whole      an operand itself, the same at each step
    number     the position of the step, from 0

The nodes of the step are a graph like any other, and passes make new ones of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from graphc.base.errors import counted
from graphc.ir.graph import Graph, Node
from graphc.ir.op import step_of
from graphc.ir.tensor_type import TensorType

Kind = Literal["stacked", "last", "sum"]
"""What becomes of a value that each step computes:

    stacked  the values of all steps, in an array with the step as its first axis
    last     the value after the last step
    sum      the sum over all steps
"""


@dataclass(frozen=True)
class Carried:
    """A value that steps hand on: the input that reads it, and the node of its next value."""

    input: str
    next: str


@dataclass(frozen=True, eq=False, repr=False)
class StepGraph:
    """The nodes of one step, and the names of its inputs.

    The operands of a loop are those of `sequences`, the initial value of each of `carried`, and
    those of `whole`, in this order.
    """

    nodes: tuple[Node, ...]
    sequences: tuple[str, ...] = ()
    carried: tuple[Carried, ...] = ()
    whole: tuple[str, ...] = ()
    number: str = ""
    """The input that is the position of the step, if there is one."""
    lengths: str = ""
    """The whole input with the number of steps of each row, if rows have their own."""

    @cached_property
    def types(self) -> Mapping[str, TensorType]:
        """The type of each node."""
        return {node.name: node.type for node in self.nodes}

    @cached_property
    def _key(self) -> tuple[object, ...]:
        """All that equal steps have in common: not the lines that declared them."""
        nodes = tuple((n.name, n.op, n.inputs, n.type) for n in self.nodes)
        return nodes, self.sequences, self.carried, self.whole, self.number, self.lengths

    @cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, StepGraph) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"StepGraph({counted(len(self.nodes), 'node')})"

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that operands of the loop give values to, in their order."""
        return (*self.sequences, *(one.input for one in self.carried), *self.whole)

    @cached_property
    def nexts(self) -> tuple[str, ...]:
        """The nodes of the next values."""
        return tuple(one.next for one in self.carried)

    def graph(self, results: Iterable[str], name: str = "step") -> Graph:
        """Return the step as a graph whose outputs are the next values and the named nodes."""
        return Graph(name, self.nodes, outputs={k: k for k in (*self.nexts, *results)})

    def of(self, graph: Graph) -> StepGraph:
        """Return the step whose nodes are those of a graph that a pass made of `graph`.

        Inputs that nothing reads any more are left out, except carried values and the lengths.
        """
        given = (*(one.input for one in self.carried), *filter(None, (self.lengths,)))
        kept = [self._input(name) for name in given if name not in graph]
        carried = tuple(Carried(x.input, graph.outputs[x.next]) for x in self.carried)
        return self.with_nodes((*kept, *graph), carried)

    def with_nodes(self, nodes: Iterable[Node], carried: tuple[Carried, ...]) -> StepGraph:
        """Return the step with these nodes and carried values, and with those inputs among them."""
        made = tuple(nodes)
        names = {node.name for node in made}
        return replace(
            self,
            nodes=made,
            sequences=tuple(name for name in self.sequences if name in names),
            carried=carried,
            whole=tuple(name for name in self.whole if name in names),
            number=self.number if self.number in names else "",
        )

    def _input(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def pruned(self, results: Sequence[str], lasts: Iterable[str]) -> StepGraph:
        """Return the step without what neither the named nodes nor the last values need.

        `lasts` are the inputs of the carried values whose last value is asked for.
        """
        kept = {one for one in self.carried if one.input in set(lasts)}
        graph = self.graph(results)
        while True:
            needed = graph.upstream([*results, *(one.next for one in kept)])
            more = {one for one in self.carried if one.input in needed} - kept
            if not more:
                break
            kept |= more
        carried = tuple(one for one in self.carried if one in kept)
        if self.lengths:
            needed.add(self.lengths)
        needed.update(one.input for one in carried)
        return self.with_nodes((node for node in self.nodes if node.name in needed), carried)


def nested(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield nodes, and those of the steps of loops among them."""
    for node in nodes:
        yield node
        step = step_of(node.op)
        if step is not None:
            yield from nested(step.nodes)


def flops(nodes: Iterable[Node], types: Mapping[str, TensorType], n: int) -> tuple[int, int]:
    """Return the operations of nodes besides matrix products, and of those; a loop counts once."""
    found: dict[object, Node] = {}
    for node in nodes:
        if not node.op.is_source:
            found[(node.op.joint, node.inputs) if node.op.is_joint else node.name] = node
    operands = ([types[name] for name in node.inputs] for node in found.values())
    pairs = [x.op.flops(ins, x.type, n) for x, ins in zip(found.values(), operands, strict=True)]
    return sum(own for own, _ in pairs), sum(products for _, products in pairs)


def stacked(type: TensorType, steps: int) -> TensorType:
    """Return the type of the values of all steps."""
    return type.with_shape((steps, *type.shape))
