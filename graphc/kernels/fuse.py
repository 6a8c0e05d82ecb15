"""Fusion of a group of nodes to a kernel, whose body stores the values that others read.

Groups that differ only in names, such as the layers of a deep net, share one body; each gets a
copy with its own names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from graphc.base.errors import GraphError, RuleError
from graphc.ir.access import AccessMap
from graphc.ir.expr import OTHER_STEPS, Axis, Body, BodyBuilder, Expr
from graphc.ir.forms import BatchedProduct, Product, WindowProduct
from graphc.ir.graph import Node
from graphc.ir.tensor_type import ORDERED, Shape
from graphc.kernels.group import Group
from graphc.kernels.groups import Grouping
from graphc.kernels.interpret import FUNCTIONS
from graphc.kernels.iteration_space import dense_strides, matrix, stored_strides
from graphc.kernels.kernel import (
    BatchedGemm,
    Convolution,
    Gemm,
    Loop,
    Single,
    gemm_partition,
    loop_partition,
)
from graphc.kernels.traits import ReadKind


@dataclass(frozen=True)
class Factor:
    """A factor of a product: its buffer, its shape, its strides and its transposition.

    `strides` are None if it is contiguous; `transposed` says if the op transposes its matrices.
    """

    buffer: str
    shape: Shape
    strides: Shape | None
    transposed: bool

    def strides_in(self, sizes: Shape) -> tuple[Shape, bool]:
        """Return the strides of the matrices, and whether they are stored transposed.

        The strides are the elements between matrices in each leading dimension, and between rows.
        """
        strides = self.strides or dense_strides(self.shape)
        missing = len(sizes) + 2 - len(self.shape)
        steps = [0 if dim == 1 else step for dim, step in zip(self.shape, strides, strict=True)]
        *rows, column = strides[-2:]
        by_columns = column != 1
        pitch = column if by_columns else rows[0]
        return (*[0] * missing, *steps[:-2], pitch), self.transposed != by_columns


class Fuser:
    """The maker of kernels from a grouping's groups, for up to `capacity` rows.

    `bodies` caches bodies by signature.  With `by_rows` threads share rows wherever they can.
    """

    def __init__(
        self,
        grouping: Grouping,
        capacity: int,
        bodies: dict[object, Body],
        by_rows: bool = False,
    ) -> None:
        self._grouping, self._capacity, self._by_rows = grouping, capacity, by_rows
        self._bodies = bodies

    def kernel(self, group: Group, stored: tuple[bool, ...]) -> Single:
        """Return the kernel of a group; `stored` says of each node whether others read it."""
        body = self._body(group, stored)
        if group.product is None:
            axis: Axis = group.axis or "columns"
            partition = loop_partition(*group.space, axis, body, self._capacity, self._by_rows)
            return Loop(*group.space, axis, body, partition, group.places or ())
        product = group.product
        of = self._grouping.padding.product(product)
        assert of is not None
        self._check_rounded(product, of)
        if isinstance(of, BatchedProduct):
            return self._batched(group, product, of, body)
        (m, n), sides = group.space, (of.trans_a, of.trans_b)
        a, b = (self._grouping.bytes_of(operand) for operand in product.inputs[:2])
        partition = gemm_partition(m, n, of, self._capacity, self._by_rows)
        fields = (m, n, of.inner, a, b, *sides, product.type.dtype, body, partition)
        if isinstance(of, WindowProduct):
            return Convolution(*fields, of.window, order=of.order)
        return Gemm(*fields, order=of.order)

    def _check_rounded(self, product: Node, of: Product) -> None:
        """Raise GraphError for a product that is to round its factors: kernels do not."""
        dtype = self._grouping.type(product.inputs[0]).dtype
        if of.order is not None and dtype != ORDERED:
            raise GraphError(
                f"{product.name!r} has an order of terms, but its factors are of {dtype}",
                loc=product.loc,
                hint="the pass 'round_products' rounds them",
            )

    def _batched(self, group: Group, product: Node, of: Product, body: Body) -> BatchedGemm:
        """Return the kernel of a stack of products."""
        grouping, result = self._grouping, product.type
        sizes, (m, n) = result.shape[:-2], result.shape[-2:]
        a, b = (
            Factor(grouping.root(name), grouping.type(name).shape, grouping.strides.get(name), side)
            for name, side in zip(product.inputs, (of.trans_a, of.trans_b), strict=True)
        )
        (strides_a, trans_a), (strides_b, trans_b) = a.strides_in(sizes), b.strides_in(sizes)
        permuted, dense = {}, dense_strides(result.shape)[:-1]
        if group.permuted is not None:
            axes = group.permuted.op.permutation
            assert axes is not None, "only a permutation is stored like that"
            permuted[group.permuted.name] = stored_strides(group.permuted.type.shape, axes)[:-1]
        factors = a.buffer, b.buffer, trans_a, trans_b
        fields = (m, n, of.inner, *factors, result.dtype, body)
        strides_out = tuple(permuted.get(name, dense) for name in body.written)
        return BatchedGemm(
            *(*fields, "matrices", sizes, strides_a, strides_b, strides_out),
            order=of.order,
        )

    def _body(self, group: Group, stored: tuple[bool, ...]) -> Body:
        fusion = _Fusion(group, self._grouping)
        key = fusion.signature, stored
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = fusion.body(stored)
        return body.renamed(fusion.names)


class _Fusion:
    """The facts that the body of one group depends on, and the body itself.

    `signature` has those facts without names: groups with equal signatures share a body.  Buffers
    are numbered by first appearance, nodes by position in the group; `names` maps back.
    """

    def __init__(self, group: Group, grouping: Grouping) -> None:
        self.group, self.grouping = group, grouping
        self._buffers: dict[str, str] = {}
        self._members = {node.name: f"node{i}" for i, node in enumerate(group.nodes)}
        self.names = {place: name for name, place in self._members.items()}
        facts: list[object] = [group.space[0] == 1, group.axis, group.product is not None]
        for node in group.nodes:
            name, form = node.name, grouping.traits(node).form
            reads = tuple([self._operand_signature(operand) for operand in node.inputs])
            facts += form, group.kinds[name], group.operands[name], reads
        self.signature = tuple(facts)

    def _operand_signature(self, name: str) -> object:
        if name in self.grouping.inlined:
            node = self.grouping.graph[name]
            form = self.grouping.traits(node).form
            return form, tuple(map(self._operand_signature, node.inputs))
        root = self.grouping.bytes_of(name)
        return self._members.get(root) or (self._place(root), self.grouping.type(name).dtype)

    def _place(self, root: str) -> str:
        place = self._buffers.get(root)
        if place is None:
            place = self._buffers[root] = f"buffer{len(self._buffers)}"
            self.names[place] = root
        return place

    def body(self, stored: Sequence[bool]) -> Body:
        """Return the body, with numbers for names."""
        self._builder = BodyBuilder()
        self._values: dict[str, Expr] = {}
        for node in self.group.nodes:
            self._add(node)
        for node, asked in zip(self.group.nodes, stored, strict=True):
            if asked:
                value, kind = self._values[node.name], self.group.kinds[node.name]
                self._builder.store(value, self._members[node.name], kind)
        return self._builder.body()

    def _add(self, node: Node) -> None:
        broadcasts, gather = self.group.operands[node.name], self.grouping.traits(node).gather
        if node is self.group.permuted:
            value = self._operand(node.inputs[0], "each")
        elif gather is not None:
            write = partial(gather.write, self._builder, partial(self._fetch, node))
            value = self._written(node, "gather", write)
        elif node is self.group.product:
            product = self._builder.product(node.type.dtype)
            extra = [
                self._operand(o, s) for o, s in zip(node.inputs[2:], broadcasts[2:], strict=True)
            ]
            value = self._written(node, "epilogue", partial(node.op.epilogue, product, extra))
        else:
            ins = [self._operand(o, s) for o, s in zip(node.inputs, broadcasts, strict=True)]
            axis = self.group.axis or self._free_axis(node)
            value = self._written(node, "scalar", partial(node.op.scalar, ins, axis))
        self._values[node.name] = value

    def _free_axis(self, node: Node) -> Axis:
        """Return the axis that a node's rule gets if the kernel reduces nothing."""
        return "columns" if matrix(node.type.shape)[0] == 1 else "rows"

    def _fetch(self, node: Node, operand: int, at: AccessMap | None, *index: Expr) -> Expr:
        """Return a gathered element of a node's operand, or the number of the row."""
        name = node.inputs[operand]
        root, dtype = self.grouping.bytes_of(name), self.grouping.type(name).dtype
        if root in self._values:  # of one element, or else it was stored by another kernel
            return self._values[root]
        place = self._place(root)
        if at is None:
            return self._builder.load(place, "row", dtype)
        return self._builder.fetch(place, at, dtype, *index)

    def _operand(self, name: str, broadcast: ReadKind) -> Expr:
        assert broadcast != "gathered", "see _fetch"
        root = self.grouping.bytes_of(name)
        if root in self._values:
            return self._values[root]
        if name in self.grouping.inlined:
            node = self.grouping.graph[name]
            ins = [self._operand(operand, "one") for operand in node.inputs]
            axis: Axis = "columns" if self.group.space[0] == 1 else "rows"
            return self._written(node, "scalar", partial(node.op.scalar, ins, axis))
        return self._builder.load(self._place(root), broadcast, self.grouping.type(name).dtype)

    def _written(self, node: Node, rule: str, write: Callable[[], Expr]) -> Expr:
        """Return the expression that a node's rule writes; raise RuleError if it is none."""
        before = len(self._builder.steps)
        try:
            value = write()
        except GraphError:
            raise
        except Exception as error:
            raise RuleError.of(node.op.name, rule, error, node.name, node.loc) from error
        fault = self._fault(node, value, before)
        if fault:
            raise RuleError(node.op.name, rule, fault, node.name, node.loc)
        return value

    def _fault(self, node: Node, value: Expr, before: int) -> str:
        """Return what is wrong with the expression for a node and the steps after `before`."""
        if not isinstance(value, Expr):
            return f"returns {type(value).__name__}, not an expression of the operands' elements"
        if value.dtype != node.type.dtype:
            return f"returns {value.dtype}, its infer rule says {node.type.dtype}: cast it"
        elements = self.grouping.traits(node).iteration == "elements"
        for step in self._builder.steps[before:]:
            if step.op not in FUNCTIONS and step.op not in OTHER_STEPS:
                return f"calls {step.op!r}; there are {', '.join(FUNCTIONS)}"
            if step.op in ("sum", "max") and elements:
                return f"takes a {step.op}, but its iteration rule says elements"
        return ""
