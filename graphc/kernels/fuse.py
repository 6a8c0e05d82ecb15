"""From a group of nodes to a kernel: it joins their expressions, and stores the values others read.

Groups that differ only in names, such as the layers of a deep net, share one body; each gets a
copy with its own names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from graphc.ir.graph import Node
from graphc.kernels.body import Axis, Body, Step, Store
from graphc.kernels.expr import BodyBuilder, Expr
from graphc.kernels.fit import Seen
from graphc.kernels.group import Group
from graphc.kernels.groups import Grouping
from graphc.kernels.kernel import Gemm, Kernel, Loop
from graphc.kernels.matrix import matrix
from graphc.kernels.products import Product
from graphc.kernels.split import gemm_split, loop_split
from graphc.kernels.stack import Factor, stacked
from graphc.kernels.walk import Elsewhere


class Fuser:
    """The maker of kernels from a grouping's groups, for up to `capacity` rows.

    `bodies` has those made before, by signature.
    """

    def __init__(self, grouping: Grouping, capacity: int, bodies: dict[object, Body]) -> None:
        self._grouping, self._capacity = grouping, capacity
        self._bodies = bodies

    def kernel(self, group: Group, stored: Callable[[str], bool]) -> Kernel:
        """Return the kernel of a group; `stored` says of a node whether others read it."""
        body = self._body(group, [stored(node.name) for node in group.nodes])
        if group.product is None:
            axis: Axis = group.axis or "columns"
            split = loop_split(*group.space, axis, body, self._capacity)
            return Loop(*group.space, axis, body, split, group.places or ())
        product = group.product
        of = self._grouping.borders.product(product)
        assert of is not None
        if of.stacked:
            return self._stack(group, product, of, body)
        (m, n), sides = group.space, (of.trans_a, of.trans_b)
        a, b = (self._grouping.bytes_of(operand) for operand in product.inputs[:2])
        split = gemm_split(m, n, of, self._capacity)
        return Gemm(m, n, of.inner, a, b, *sides, product.type.dtype, body, split, of.window)

    def _stack(self, group: Group, product: Node, of: Product, body: Body) -> Gemm:
        """Return the kernel of many products."""
        grouping, sides = self._grouping, (of.trans_a, of.trans_b)
        a, b = (
            Factor(grouping.root(name), grouping.type(name).shape, grouping.strides.get(name), side)
            for name, side in zip(product.inputs, sides, strict=True)
        )
        return stacked(product.type, of.inner, a, b, group.turned, body)

    def _body(self, group: Group, stored: list[bool]) -> Body:
        fusion = _Fusion(group, self._grouping)
        key = fusion.signature, tuple(stored)
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = fusion.body(stored)
        return _named(body, fusion.names)


def _named(body: Body, names: Mapping[str, str]) -> Body:
    """Return the body with the real names of its buffers."""
    steps = list(body.steps)
    for number, (op, args, span, dtype, buffer, value) in enumerate(steps):
        if buffer:
            steps[number] = Step(op, args, span, dtype, names[buffer], value)
    stores = [Store(names[buffer], step, span) for buffer, step, span in body.stores]
    return Body(tuple(steps), tuple(stores))


class _Fusion:
    """The facts that the body of one group depends on, and the body itself.

    `signature` is those facts without names: two groups with one signature have one body.  Buffers
    count by their first appearance, nodes by their place in the group; `names` maps back.
    """

    def __init__(self, group: Group, grouping: Grouping) -> None:
        self.group, self.grouping = group, grouping
        self.names: dict[str, str] = {}
        self._buffers: dict[str, str] = {}
        self._members = {node.name: f"node{i}" for i, node in enumerate(group.nodes)}
        self.names.update((place, name) for name, place in self._members.items())
        nodes = tuple(map(self._node_signature, group.nodes))
        self.signature = group.space[0] == 1, group.axis, group.product is not None, nodes

    def _node_signature(self, node: Node) -> object:
        name = node.name
        spans = self.group.operands[name]
        reads = tuple([self._operand_signature(operand) for operand in node.inputs])
        return self.grouping.traits(node).form, self.group.roles[name], spans, reads

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

    def body(self, stored: list[bool]) -> Body:
        """Return the body, with places for names."""
        self._builder = BodyBuilder()
        self._values: dict[str, Expr] = {}
        for node in self.group.nodes:
            self._add(node)
        for node, asked in zip(self.group.nodes, stored, strict=True):
            if asked:
                value, role = self._values[node.name], self.group.roles[node.name]
                self._builder.store(value, self._members[node.name], role)
        return self._builder.body()

    def _add(self, node: Node) -> None:
        spans, reader = self.group.operands[node.name], self.grouping.traits(node).reader
        if node is self.group.turned:
            value = self._operand(node.inputs[0], "each")
        elif reader is not None:
            value = reader.write(self._builder, partial(self._fetch, node))
        elif node is self.group.product:
            product = self._builder.product(node.type.dtype)
            extra = [self._operand(o, s) for o, s in zip(node.inputs[2:], spans[2:], strict=True)]
            value = node.op.epilogue(product, extra)
        else:
            ins = [self._operand(o, s) for o, s in zip(node.inputs, spans, strict=True)]
            value = node.op.scalar(ins, self.group.axis or self._free_axis(node))
        self._values[node.name] = value

    def _free_axis(self, node: Node) -> Axis:
        """Return the axis of a node's own counts if nothing is reduced."""
        return "columns" if matrix(node.type.shape)[0] == 1 else "rows"

    def _fetch(self, node: Node, operand: int, at: Elsewhere | None, *index: Expr) -> Expr:
        """Return a gathered element of a node's operand, or the number of the row."""
        name = node.inputs[operand]
        place, dtype = self._place(self.grouping.bytes_of(name)), self.grouping.type(name).dtype
        if at is None:
            return self._builder.load(place, "row", dtype)
        return self._builder.fetch(place, at, dtype, *index)

    def _operand(self, name: str, span: Seen) -> Expr:
        assert span != "elsewhere", "see _fetch"
        root = self.grouping.bytes_of(name)
        if root in self._values:
            return self._values[root]
        if name in self.grouping.inlined:
            node = self.grouping.graph[name]
            ins = [self._operand(operand, "one") for operand in node.inputs]
            axis: Axis = "columns" if self.group.space[0] == 1 else "rows"
            return node.op.scalar(ins, axis)
        return self._builder.load(self._place(root), span, self.grouping.type(name).dtype)
