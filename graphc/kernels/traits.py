"""The facts about a node that fusion needs often, computed once for all nodes that are alike."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Along, Op
from graphc.ir.tensor_type import TensorType
from graphc.kernels.body import Body
from graphc.kernels.fit import Fit, fits_of, is_number, is_plain, reader_fit
from graphc.kernels.gathers import Reader
from graphc.kernels.matrix import Space, by_last, matrix
from graphc.kernels.products import Product


@dataclass(frozen=True, slots=True)
class Traits:
    """The form of a node in kernels, which does not depend on its name and its operands' names."""

    form: tuple[object, ...]
    """All that a kernel's body depends on: nodes of several shapes mostly have one form."""
    op: Op
    """The op of all these nodes, or the first of those that are equal."""
    type: TensorType
    ins: list[TensorType]
    """The types of its operands."""
    along: Along
    product: Product | None
    """The form of a matrix product that has a kernel, else None."""
    fits: dict[Space, Fit]
    """Its fit in each of its own spaces, its first choice first; empty without a kernel."""
    reader: Reader | None
    """The rule of an op that gathers its operands, else None."""
    plain: bool
    """Whether it computes the same in any matrix of as many elements."""
    repeats: bool
    """Whether it only repeats numbers."""
    space: Space | None
    """The space of its choice."""
    fit: Fit | None
    """The fit in the space of its choice."""


class Forms:
    """The traits and the bodies that the programs of a plan have in common.

    Types count by identity, since equal ones are one object; ops by their attributes, which are
    compared once for each object.
    """

    def __init__(self) -> None:
        self.bodies: dict[object, Body] = {}
        """From the signature of a group to its body, see `graphc.kernels.fuse`."""
        self._equal: dict[Op, Op] = {}
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
            first = self._equal.setdefault(op, op)
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
    reader = op.gather(ins, node.type)
    fits = fits_of(node, ins) if reader is None else {by_last(reader.shape): reader_fit(ins)}
    along = op.along(ins) if reader is None else "elements"
    product, plain = op.product(ins), is_plain(node, fits)
    choice = next(iter(fits.items()), (None, None))
    one_row = matrix(node.type.shape)[0] == 1
    form = (id(op), node.type.dtype, one_row, None if reader is None else id(reader))
    small = bool(ins) and all(map(is_number, ins)) and not is_number(node.type)
    repeats = small and along == "elements" and not op.is_random and reader is None
    return Traits(form, op, node.type, ins, along, product, fits, reader, plain, repeats, *choice)
