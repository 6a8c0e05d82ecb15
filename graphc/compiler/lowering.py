"""Lowering: nodes become instructions, fused kernels or calls of reference rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from graphc.compiler.scan_lowering import Build, lower_scan
from graphc.compiler.schedule import Schedule, fusing_order
from graphc.ir.expr import BodyBuilder
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType, count
from graphc.kernels.aliases import View
from graphc.kernels.chains import Stacks, chained
from graphc.kernels.fuse import Fuser
from graphc.kernels.group import Group, Joined, Unit
from graphc.kernels.groups import Grouping
from graphc.kernels.iteration_space import Space, by_last, flat, matrix
from graphc.kernels.kernel import (
    Gemm,
    Loop,
    Permutation,
    ScatterAdd,
    Single,
    inputs,
    loop_partition,
)
from graphc.kernels.program import Instr
from graphc.kernels.traits import Forms, TraitsOf
from graphc.ops.exchange import Receive, Send
from graphc.ops.fused import is_event_of
from graphc.ops.scan import loops


class Lowering:
    """The instructions of a scheduled graph, fused into as few kernels as possible.

    It also knows the types of all values that they read or write.
    """

    def __init__(
        self,
        graph: Graph,
        schedule: Schedule,
        capacity: int,
        forms: Forms | None = None,
        keeps: bool = False,
        build: Build | None = None,
        by_rows: bool | None = None,
        threads: int = 1,
    ) -> None:
        self.graph = graph
        self._build, self._by_rows = build, bool(by_rows)
        self._loops = {node.name: nodes for nodes in loops(graph).values() for node in nodes}
        self.capacity = capacity
        self.keeps = keeps
        """True if every value is stored, with the same bits, and lives to the end of the run."""
        self.instrs: list[Instr] = []
        self.types: dict[str, TensorType] = {}
        """The types of the buffers that are not nodes."""
        self.flat: dict[str, int] = {}
        """For each exchanged value, its offset in the buffer of all buckets."""
        self.given = schedule.in_place.keys()
        """The values that are written to states."""
        self.boundary = -1
        self._sent: dict[int, dict[str, str]] = {}
        self._scanned: set[str] = set()
        forms = forms or Forms()
        self._steps = forms.steps
        traits = TraitsOf(graph, forms)
        order, boundary = fusing_order(graph, schedule, traits)
        trains = graph.updates or graph.gradients
        whole = by_rows is not None or any(isinstance(node.op, Send) for node in graph)
        infers = not (trains or whole)
        self._grouping = Grouping(graph, order, boundary, schedule.in_place, traits, infers)
        self._fuser = Fuser(self._grouping, capacity, forms.bodies, self._by_rows)
        permuted = self._grouping.strides
        self.roots = {k: v for k, v in self._grouping.roots.items() if k not in permuted}
        """For each alias, the buffer whose bytes it shares."""
        self.views: dict[str, View] = dict(self._grouping.views)
        """For each alias that is some columns of its root, those columns."""
        self._lower_all(schedule)
        if not keeps:
            self._chain(threads)

    def _chain(self, threads: int) -> None:
        """Join kernels of stacks to chains, which up to so many threads share."""
        aside = {*self.roots, *self.roots.values(), *self.graph.roots, *self.given}
        parts = {*self.views, *self.given}
        places = aside.__contains__, parts.__contains__
        stacks = Stacks(self.type, *places, self.capacity, threads)
        self.instrs, workspaces, self.boundary = chained(self.instrs, self.boundary, stacks)
        self.types.update(workspaces)

    def _lower_all(self, schedule: Schedule) -> None:
        """Add the instructions of all units, in order."""
        backward = {node.name for node in schedule.order[schedule.boundary :]}
        for unit in self._grouping:
            last = unit if isinstance(unit, Node) else _last(unit)
            if self.boundary < 0 and last.name in backward:
                self._end_forward(schedule)
            self._lower(unit)
        if self.boundary < 0:
            self._end_forward(schedule)

    def _lower(self, unit: Unit) -> None:
        if isinstance(unit, Group):
            self._kernel(unit)
        elif isinstance(unit, Joined):
            self._join(unit)
        elif unit.op.permutation is not None:
            self._permute(unit, unit.op.permutation)
        elif unit.op.is_scatter_add(unit.type):
            self._scatter_add(unit)
        elif isinstance(unit.op, (Send, Receive)):
            self._exchange(unit, unit.op)
        elif unit.name in self._loops:
            self._scan(self._loops[unit.name])
        else:
            self.instrs.append(
                Instr("call", unit.op.name, unit.op, unit.inputs, (unit.name,), unit.name)
            )

    def _scan(self, nodes: list[Node]) -> None:
        """Add one instruction for all results of a loop, at the first of them."""
        if nodes[0].name in self._scanned:
            return
        self._scanned.add(nodes[0].name)
        assert self._build is not None, "loops are lowered by programs"
        firsts: dict[Op, Node] = {}
        for node in nodes:
            firsts.setdefault(node.op, node)
        root, known = self._grouping.root, self._steps
        made = lower_scan([*firsts.values()], self._build, self.capacity, root, known)
        self.types[made.instr.outs[0]] = made.workspace
        self.instrs.append(made.instr)
        for node in nodes:
            if (first := firsts[node.op]) is not node:
                self.copy(first.name, node.name, node.type, node.name)

    def _end_forward(self, schedule: Schedule) -> None:
        """Copy values that could not be written in place to their states; backward reads none."""
        for state, value in schedule.commits:
            self.copy(value, f"{state} <- {value}", self.graph[state].type, state)
        self.boundary = len(self.instrs)

    def root(self, name: str) -> str:
        """Return the buffer whose bytes `name` shares."""
        return self.roots.get(name, name)

    def type(self, name: str) -> TensorType:
        """Return the type of a buffer."""
        found = self.types.get(name)
        return self.graph[name].type if found is None else found

    # ------------------------------------------------------------------ kernels

    def _kernel(self, group: Group) -> None:
        names = tuple([node.name for node in group.nodes])
        stored = tuple([self._is_stored(group, name) for name in names])
        if self.keeps:
            kernel = self._fuser.kernel(group, (True,) * len(names))
            read = {name for name, one in zip(names, stored, strict=True) if one}
            kernel = replace(kernel, body=kernel.body.with_own_products(read))
        else:
            kernel = self._fuser.kernel(group, stored)
        self.instrs.append(kernel_instr(kernel, names))

    def _permute(self, node: Node, axes: tuple[int, ...]) -> None:
        """Add a copy of a value with its axes permuted."""
        (source,) = node.inputs
        space = by_last(node.type.shape)
        builder = BodyBuilder()
        value = builder.load(self._grouping.root(source), "each", node.type.dtype)
        builder.store(value, node.name, "each")
        shape, body = self.graph[source].type.shape, builder.body()
        kernel = Permutation(*space, "columns", body, "matrices", shape=shape, axes=axes)
        self.instrs.append(kernel_instr(kernel, (node.name,)))

    def _scatter_add(self, node: Node) -> None:
        """Add the kernel of a scatter-add."""
        indices, source = node.inputs
        of_indices = self.graph[indices].type
        builder = BodyBuilder()
        builder.store(builder.scatter_add(node.type.dtype), node.name, "each")
        rows, columns = node.type.shape[0], count(node.type.shape[1:])  # a vector has one column
        kernel = ScatterAdd(
            rows,
            columns,
            "rows",
            builder.body(),
            "columns",
            source=self._grouping.root(source),
            indices=self._grouping.root(indices),
            index_dtype=of_indices.dtype,
            count=count(of_indices.shape),
        )
        self.instrs.append(kernel_instr(kernel, (node.name,)))

    def _join(self, joined: Joined) -> None:
        """Add a copy of each part to its columns, unless a kernel can write it there."""
        name, type = joined.node.name, joined.node.type
        width = joined.parts[-1].stop
        for number, part in enumerate(joined.parts):
            if part.operand is not None and self._writes_columns(part.operand, joined.node):
                self.roots[part.operand] = name
                self.views[part.operand] = View(name, part.start, width)
                continue
            view = f"{name}.columns{number}"
            rows, columns = type.shape[0], part.stop - part.start
            self.types[view] = type.with_shape((rows, columns))
            self.roots[view] = name
            self.views[view] = View(name, part.start, width)
            self._copy_matrix(part.operand, view, type.dtype, (rows, columns), (name,))

    def _writes_columns(self, name: str, joined: Node) -> bool:
        """Return whether a kernel may store a step's value, read once, as columns of a concat."""
        group = self._grouping.group_of.get(name)
        if not self._by_rows or group is None or isinstance(group.product, Node):
            return False
        alone = self.graph.feeds_only(name, joined.name) and self.root(name) == name
        kind, space = group.kinds[name], matrix(self.graph[name].type.shape)
        return alone and kind == "each" and group.space == space and group.places is None

    def _copy_matrix(
        self, source: str | None, out: str, dtype: str, space: Space, nodes: tuple[str, ...]
    ) -> None:
        builder = BodyBuilder()
        if source is None:
            value = builder.const(0, dtype)
        else:
            value = builder.load(self._grouping.bytes_of(source), "each", dtype)
        builder.store(value, out, "each")
        body = builder.body()
        partition = loop_partition(*space, "columns", body, self.capacity, self._by_rows)
        self.instrs.append(kernel_instr(Loop(*space, "columns", body, partition), nodes))

    def _is_stored(self, group: Group, name: str) -> bool:
        """Return whether anything outside the group reads a node, or an alias of it."""
        if name in self.graph.roots:
            return True
        grouping = self._grouping
        for user in self.graph.users[name]:
            if grouping.group_of.get(user) is group or is_event_of(name, self.graph[user]):
                continue
            aside = user in grouping.roots or user in grouping.inlined
            if not aside or self._is_stored(group, user):
                return True
        return False

    def copy(self, source: str, out: str, type: TensorType, node: str) -> None:
        """Add a copy of a buffer into a new one."""
        self.types[out] = type
        space = matrix(type.shape) if self._by_rows and type.batched else flat(type.shape)
        self._copy_matrix(source, out, type.dtype, space, (node,))

    # ------------------------------------------------------------------ exchange

    def _exchange(self, node: Node, op: Send | Receive) -> None:
        """Add one instruction for a whole bucket, at its last value to send or first to receive."""
        (source,), out = node.inputs, node.name
        if isinstance(op, Send):
            source = self._sendable(source, node)
            self.flat.update({source: op.offset, out: op.offset})
            members = self._sent.setdefault(op.bucket, {})
            members[out] = source
            if len(members) == op.members:
                self._exchanged("send", op, members)
        elif out not in self.flat:
            arriving = {
                user: name for name in self._sent[op.bucket] for user in self.graph.users[name]
            }
            self.flat.update({user: self.flat[name] for user, name in arriving.items()})
            self._exchanged("receive", op, arriving)

    def _exchanged(
        self, kind: Literal["send", "receive"], op: Op, members: Mapping[str, str]
    ) -> None:
        """Add the instruction for a bucket; `members` maps each result to its operand."""
        outs = tuple(sorted(members, key=self.flat.__getitem__))
        ins = tuple(members[out] for out in outs)
        self.instrs.append(Instr(kind, kind, op, ins, outs, outs[-1]))

    def _sendable(self, name: str, node: Node) -> str:
        """Return the value, or a copy of it if its place in memory is fixed already."""
        own = self.graph[name].op.is_source or name in self.given
        alone = self.graph.feeds_only(name, node.name) and self.root(name) == name
        if alone and not own:
            return name
        copy = f"{node.name}.copy"
        self.copy(name, copy, self.type(name), node.name)
        return copy


def kernel_instr(kernel: Single, nodes: tuple[str, ...]) -> Instr:
    """Return the instruction that runs a fused kernel."""
    kind = "gemm" if isinstance(kernel, Gemm) else kernel.axis
    buffers = inputs(kernel), kernel.body.written
    return Instr("kernel", kind, None, *buffers, nodes[-1], kernel, nodes)


def _last(unit: Group | Joined) -> Node:
    return unit.nodes[-1] if isinstance(unit, Group) else unit.node
