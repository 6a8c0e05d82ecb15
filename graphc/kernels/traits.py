"""The facts about a graph's nodes that fusion needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphc.ir.expr import Body
from graphc.ir.forms import GatherRule, Product
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Iteration, Op
from graphc.ir.tensor_type import Dim, TensorType
from graphc.kernels.iteration_space import (
    Placement,
    Space,
    by_last,
    gather_placement,
    is_number,
    is_plain,
    matrix,
    placements_of,
    product_placement,
)


class Traits(NamedTuple):
    """The form of a node in kernels, which does not depend on its name and its operands' names."""

    form: tuple[object, ...]
    """All that a kernel's body depends on: nodes of several shapes mostly have one form."""
    op: Op
    """The op, or the first op that equals it."""
    type: TensorType
    ins: list[TensorType]
    """The types of its operands."""
    iteration: Iteration
    product: Product | None
    """The form of a matrix product that has a kernel, else None."""
    placements: dict[Space, Placement]
    """Its placement in each of its own spaces, its first choice first; empty without a kernel."""
    gather: GatherRule | None
    """The rule of an op that gathers its operands, else None."""
    moves: bool
    """Whether it only permutes the axes of its operand, or cuts or pads it."""
    epilogue: tuple[Space, Placement] | None
    """The space and the placement of a matrix product and its epilogue, else None."""
    pitches: tuple[tuple[int, Dim], ...]
    """The columns of the factors that a product reads as matrices; empty if as the result's."""
    plain: bool
    """Whether it computes the same in any matrix of as many elements."""
    repeats: bool
    """Whether it only broadcasts numbers."""
    space: Space | None
    """The space of its first choice."""
    placement: Placement | None
    """The placement in that space."""


class Forms:
    """The traits and the bodies that the programs of a plan have in common.

    Types count by identity, since equal ones are one object; ops by their attributes, which are
    compared once for each object.
    """

    def __init__(self) -> None:
        self.bodies: dict[object, Body] = {}
        """For each signature of a group, its body; see `graphc.kernels.fuse`."""
        self._equal: dict[tuple[type[Op], Op], Op] = {}
        self._known: dict[int, tuple[Op, Op]] = {}
        self._traits: dict[tuple[int, ...], Traits] = {}

    def traits(self, node: Node, ins: list[TensorType]) -> Traits:
        """Return the traits of a node whose operands have these types."""
        op = self._op(node.op)
        key = (id(op), id(node.type), *map(id, ins))
        known = self._traits.get(key)
        if known is None:
            known = self._traits[key] = _traits(op, node, ins)
        return known

    def _op(self, op: Op) -> Op:
        """Return the first op with the same attributes."""
        known = self._known.get(id(op))
        if known is None:
            known = self._known[id(op)] = op, self._first(op)
        return known[1]

    def _first(self, op: Op) -> Op:
        try:
            first = self._equal.setdefault((type(op), op), op)  # ops without fields hash alike
        except TypeError:
            return op  # an attribute has no hash
        alike = first is op or not op.__dict__ or repr(first) == repr(op)  # 0.0 equals -0.0
        return first if alike else op


class TraitsOf:
    """The traits of a graph's nodes."""

    def __init__(self, graph: Graph, forms: Forms) -> None:
        self._graph, self._forms = graph, forms
        self._known: dict[str, tuple[Op, Traits]] = {}

    def __call__(self, node: Node) -> Traits:
        """Return the traits of a node that is not a source.

        A product and the slice of it have one name: the op distinguishes them.
        """
        known = self._known.get(node.name)
        if known is None or known[0] is not node.op:
            ins = [self._graph[operand].type for operand in node.inputs]
            known = self._known[node.name] = node.op, self._forms.traits(node, ins)
        return known[1]


def _traits(op: Op, node: Node, ins: list[TensorType]) -> Traits:
    gather, product = op.gather(ins, node.type), op.product(ins)
    if gather is None:
        iteration, placements = op.iteration(ins), placements_of(node, ins)
    else:
        iteration, placements = "elements", {by_last(gather.shape): gather_placement(ins)}
    plain, choice = is_plain(node, placements), next(iter(placements.items()), (None, None))
    one_row = matrix(node.type.shape)[0] == 1
    form = (id(op), node.type.dtype, one_row, None if gather is None else id(gather))
    small = bool(ins) and all(map(is_number, ins)) and not is_number(node.type)
    repeats = small and iteration == "elements" and not op.is_random and gather is None
    moves = len(ins) == 1 and (op.permutation or op.box_start(ins[0])) is not None
    kind = form, op, node.type, ins, iteration, product
    as_product = moves, *_of_product(node, ins, product)
    return Traits(*kind, placements, gather, *as_product, plain, repeats, *choice)


def _of_product(
    node: Node, ins: list[TensorType], product: Product | None
) -> tuple[tuple[Space, Placement] | None, tuple[tuple[int, Dim], ...]]:
    """Return the `epilogue` and the `pitches` of a node."""
    if product is None:
        return None, ()
    space = by_last(node.type.shape)
    read: tuple[int, ...] = (0, 1)
    if product.window is not None:
        read = () if product.trans_b else (1,)
    pitches = tuple((i, by_last(ins[i].shape)[1]) for i in read)
    odd = any(width != space[1] for _, width in pitches)
    return (space, product_placement(node, ins)), pitches if odd else ()


ROWS = 1
"""The bit of values that depend on the number of rows, but not on a feed that has rows."""


def feed_masks(graph: Graph) -> dict[str, int]:
    """Return for each node, as bits, the feeds that it depends on."""
    masks: dict[str, int] = {}
    bit, batched = 2 * ROWS, 0
    for node in graph:
        if node.op.is_input:
            masks[node.name] = bit
            batched |= bit if node.type.batched else 0
            bit <<= 1
            continue
        mask = ROWS if counts_rows(graph, node) else 0
        for operand in node.inputs:
            mask |= masks[operand]
        masks[node.name] = mask & ~ROWS if mask & batched else mask
    return masks


def counts_rows(graph: Graph, node: Node) -> bool:
    """Return whether a node has as many rows as the batch, and no operand that has them."""
    given = node.op.is_input or any(graph[name].type.batched for name in node.inputs)
    return node.type.batched and not given


def reason_for_call(op: Op, ins: Sequence[TensorType]) -> str:
    """Return, in a few words, why an op is called: what it lacks, or its operands' types."""
    types = ", ".join(map(str, ins))
    if type(op).product is not Op.product:
        if any(type.rank != 2 for type in ins[:2]):
            return f"only products of matrices are generated, not of {types}"
    elif type(op).iteration is Op.iteration:
        return "it has no scalar rule"
    return f"no generated form for {types}"
