"""The traits of nodes: what fusion asks of a node, by the rules of its op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from graphc.base.errors import GraphError, RuleError, counted, shown
from graphc.ir.expr import Axis, Body, Broadcast
from graphc.ir.forms import GatherRule, Product, WindowProduct
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Iteration, Op
from graphc.ir.tensor_type import Dim, TensorType, count
from graphc.kernels.iteration_space import (
    Space,
    broadcast_kind,
    by_last,
    by_lead,
    flat,
    is_number,
    leads,
    matrix,
)

T = TypeVar("T")
ITERATIONS: tuple[str, ...] = get_args(Iteration)

# ------------------------------------------------------------------ what the rules of an op say


def _asked(node: Node, kind: type[T], rule: str, *args: object) -> T | None:
    """Return what a rule says: None, or an object of that kind; raise RuleError if it does not."""
    try:
        found: T | None = getattr(node.op, rule)(*args)
    except GraphError:
        raise
    except Exception as error:
        raise RuleError.of(node.op.name, rule, error, node.name, node.loc) from error
    if found is not None and not isinstance(found, kind):
        raise _wrong(node, rule, f"returns {shown(found)}, not a {kind.__name__} or None")
    return found


def _wrong(node: Node, rule: str, fault: str) -> RuleError:
    return RuleError(node.op.name, rule, fault, node.name, node.loc)


def iteration_of(node: Node, ins: list[TensorType]) -> Iteration:
    """Return the iteration of a node; raise RuleError if there is no such one."""
    found: Any = _asked(node, object, "iteration", ins)
    is_known = isinstance(found, str) and found in ITERATIONS
    if not is_known:
        known = ", ".join(ITERATIONS)
        raise _wrong(node, "iteration", f"returns {shown(found)}, which is not one of {known}")
    if found == "all" and not ins:
        raise _wrong(node, "iteration", "returns 'all', but the op has no operand to reduce")
    iteration: Iteration = found
    return iteration


def kinds_of(node: Node, ins: list[TensorType]) -> tuple[Broadcast, ...] | None:
    """Return the broadcast kinds that a node's op says; raise RuleError if it says none."""
    return _asked(node, tuple, "broadcast_kinds", ins)


def _broadcast_kinds(
    node: Node, ins: list[TensorType], space: Space
) -> tuple[Broadcast, ...] | None:
    """Return the broadcast kinds of a node's operands; raise RuleError if they cannot be."""
    found = kinds_of(node, ins)
    if found is None:
        return None
    if len(found) != len(ins):
        fault = f"returns {shown(found)}, not a tuple of {counted(len(ins), 'kind')}"
        raise _wrong(node, "broadcast_kinds", fault)
    rows, columns = space
    sizes: dict[str, Dim] = {"each": count(space), "row": rows, "column": columns, "one": 1}
    for x, kind in zip(ins, found, strict=True):
        if not isinstance(kind, str) or kind not in sizes:
            kinds = "each, row, column or one"
            raise _wrong(node, "broadcast_kinds", f"returns {shown(kind)}, which is not {kinds}")
        if count(x.shape) != sizes[kind]:
            has = f"{kind!r} has {sizes[kind]} elements, the operand {x}"
            raise _wrong(node, "broadcast_kinds", f"does not fit: {has}")
    return found


# ------------------------------------------------------------------ placements

ReadKind = Broadcast | Literal["gathered"]
"""The way a node reads an operand: by its broadcast kind, or by a gather."""


class Placement(NamedTuple):
    """The way a node runs: broadcast kinds of its value and operands, and its reduction axis."""

    kind: Broadcast
    operands: tuple[ReadKind, ...]
    axis: Axis | None


def placements_of(
    node: Node, ins: list[TensorType], iteration: Iteration
) -> dict[Space, Placement]:
    """Return the placements of a node in the spaces that it can run over by itself.

    An op on elements runs over the matrix of its first dimension by all others, or over that of all
    dimensions by the last; the first one found is its choice.  Without a kernel there are none.
    """
    if iteration == "call":
        return {}
    if iteration == "all":
        whole: list[Broadcast] = ["each" for _ in ins]
        return {flat(ins[0].shape): Placement("row", tuple(whole), "columns")}
    if iteration == "elements":
        return _of_elements(node, ins)
    space = by_lead(ins[0].shape, node.op.lead(ins))
    broadcasts = _broadcast_kinds(node, ins, space)
    if broadcasts is None:
        raise _wrong(node, "broadcast_kinds", "returns None, but the op reduces an axis")
    axis: Axis = "rows" if iteration == "rows" else "columns"
    kind: Broadcast = "row" if axis == "columns" else "column"
    if node.type.rank >= 2 and node.type.shape == ins[0].shape:
        kind = "each"
    return {space: Placement(kind, broadcasts, axis)}


def _of_elements(node: Node, ins: list[TensorType]) -> dict[Space, Placement]:
    shape, space = node.type.shape, by_lead(node.type.shape, node.op.lead(ins))
    broadcasts = _broadcast_kinds(node, ins, space)
    kind: Broadcast = "each" if shape else "row"
    if broadcasts is not None:
        return {space: Placement(kind, broadcasts, None)}
    found: dict[Space, Placement] = {}
    for lead in leads(shape):
        kinds = [broadcast_kind(type.shape, shape, lead) for type in ins]
        known = tuple(broadcast for broadcast in kinds if broadcast is not None)
        if len(known) == len(kinds):
            found.setdefault(by_lead(shape, lead), Placement(kind, known, None))
    return found


def gather_placement(ins: Sequence[TensorType]) -> Placement:
    """Return the placement of an op that gathers its operands."""
    operands: list[ReadKind] = ["gathered" for _ in ins]
    return Placement("each", tuple(operands), None)


def product_placement(node: Node, ins: list[TensorType]) -> Placement:
    """Return the placement of a matrix product and its epilogue in the result's matrix."""
    found = (broadcast_kind(type.shape, node.type.shape) for type in ins[2:])
    extra: tuple[Broadcast, ...] = tuple(broadcast or "each" for broadcast in found)
    return Placement("each", ("each", "each", *extra), None)


def is_reshapable(node: Node, placements: Mapping[Space, Placement]) -> bool:
    """Return whether a node computes the same in any matrix of as many elements.

    It then has rank 3 or more, and reads only elements and numbers.
    """
    placement = next(iter(placements.values()), None)
    if placement is None or node.type.rank < 3 or node.op.is_random or placement.axis is not None:
        return False
    return placement.kind == "each" and set(placement.operands) <= {"each", "one"}


# ------------------------------------------------------------------ traits


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
    """The placement in each possible space, the first choice first; empty without a kernel."""
    gather: GatherRule | None
    """The rule of an op that gathers its operands, else None."""
    moves: bool
    """True if it only permutes the axes of its operand, or cuts or pads it."""
    epilogue: tuple[Space, Placement] | None
    """The space and the placement of a matrix product and its epilogue, else None."""
    pitches: tuple[tuple[int, Dim], ...]
    """The columns of the factors that a product reads as matrices; empty if as the result's."""
    reshapable: bool
    """True if it computes the same in any matrix of as many elements."""
    broadcasts_numbers: bool
    """True if it only broadcasts numbers."""
    space: Space | None
    """The space of its first choice."""
    placement: Placement | None
    """The placement in that space."""


class Forms:
    """The traits, bodies and programs of steps that the programs of a plan have in common.

    Types count by identity, since equal ones are one object; ops by their attributes, which are
    compared once for each object.
    """

    def __init__(self) -> None:
        self.bodies: dict[object, Body] = {}
        """For each signature of a group, its body; see `graphc.kernels.fuse`."""
        self.steps: dict[object, Any] = {}
        """For the results of each loop, the program of its step; see `lower_scan`."""
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
            return self._equal.setdefault((type(op), op), op)  # ops without fields hash alike
        except TypeError:
            return op  # an attribute has no hash


class TraitsOf:
    """A function from the nodes of a graph to their traits, which it caches."""

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
    gather = _asked(node, GatherRule, "gather", ins, node.type)
    product = None if 0 in node.type.shape else _asked(node, Product, "product", ins)
    if gather is None:
        iteration = iteration_of(node, ins)
        placements = placements_of(node, ins, iteration)
    else:
        iteration, placements = "elements", {by_last(gather.shape): gather_placement(ins)}
    reshapable = is_reshapable(node, placements)
    choice = next(iter(placements.items()), (None, None))
    one_row = matrix(node.type.shape)[0] == 1
    form = (id(op), node.type.dtype, one_row, None if gather is None else id(gather))
    small = bool(ins) and all(map(is_number, ins)) and not is_number(node.type)
    broadcasts_numbers = small and iteration == "elements" and not op.is_random and gather is None
    moves = len(ins) == 1 and (op.permutation or op.box_start(ins[0])) is not None
    kind = form, op, node.type, ins, iteration, product
    as_product = moves, *_of_product(node, ins, product)
    return Traits(*kind, placements, gather, *as_product, reshapable, broadcasts_numbers, *choice)


def _of_product(
    node: Node, ins: list[TensorType], product: Product | None
) -> tuple[tuple[Space, Placement] | None, tuple[tuple[int, Dim], ...]]:
    """Return the fields `epilogue` and `pitches` of the `Traits` of a node."""
    if product is None:
        return None, ()
    space = by_last(node.type.shape)
    if type(product) is Product:
        for x, side in zip(ins[:2], space, strict=True):
            if count(x.shape) != count((side, product.inner)):
                terms = f"is of {side} x {product.inner} elements, the operand is {x}"
                raise _wrong(node, "product", f"does not fit: it {terms}")
    read: tuple[int, ...] = (0, 1)
    if isinstance(product, WindowProduct):
        read = () if product.trans_b else (1,)
    pitches = tuple((i, by_last(ins[i].shape)[1]) for i in read)
    odd = any(width != space[1] for _, width in pitches)
    return (space, product_placement(node, ins)), pitches if odd else ()


# ------------------------------------------------------------------ feeds

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
    if not node.type.batched or node.op.is_input:
        return False
    return not any(graph[name].type.batched for name in node.inputs)


def reason_for_call(op: Op, ins: Sequence[TensorType]) -> str:
    """Return, in a few words, why an op is called: what it lacks, or its operands' types."""
    types = ", ".join(map(str, ins))
    if type(op).product is not Op.product:
        if any(type.rank != 2 for type in ins[:2]):
            return f"only products of matrices are generated, not of {types}"
    elif type(op).iteration is Op.iteration:
        return "it has no scalar rule"
    return f"no generated form for {types}"
