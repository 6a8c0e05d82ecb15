"""Lowering: nodes become instructions, fused kernels or calls of reference rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from graphc.base.door import higher, optional
from graphc.compiler.schedule import Schedule, fusing_order
from graphc.ir.expr import BodyBuilder
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import TensorType, count
from graphc.kernels.aliases import View
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
from graphc.kernels.program import Instr, Program
from graphc.kernels.traits import Forms, TraitsOf
from graphc.ops.fused import is_event_of


class Build(Protocol):
    """The builder of the program of a step."""

    def __call__(
        self, name: str, graph: Graph, rows: int, carried: Mapping[str, str], at_once: bool
    ) -> Program:
        """Return the program for up to `rows` rows, those of all steps if they run at once.

        `carried` maps results to the feeds that they become.
        """


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
        self.build = build
        """The builder of the programs of steps."""
        self._by_rows = bool(by_rows)
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
        self._lowerings: dict[str, Callable[[Node], None]] = {}
        """The functions that lower nodes with a form of their own, by `Op.lowering`."""
        forms = forms or Forms()
        self.known_steps = forms.steps
        """The programs of steps that are known already."""
        traits = TraitsOf(graph, forms)
        order, boundary = fusing_order(graph, schedule, traits)
        trains = graph.updates or graph.gradients
        whole = by_rows is not None or any(node.op.transfer for node in graph)
        infers = not (trains or whole)
        self.grouping = Grouping(graph, order, boundary, schedule.in_place, traits, infers)
        self._fuser = Fuser(self.grouping, capacity, forms.bodies, self._by_rows)
        permuted = self.grouping.strides
        self.roots = {k: v for k, v in self.grouping.roots.items() if k not in permuted}
        """For each alias, the buffer whose bytes it shares."""
        self.views: dict[str, View] = dict(self.grouping.views)
        """For each alias that is some columns of its root, those columns."""
        self._lower_all(schedule)
        chain = None if keeps else optional("chain kernels")
        if chain is not None:
            chain(self, threads)

    def _lower_all(self, schedule: Schedule) -> None:
        """Add the instructions of all units, in order."""
        backward = {node.name for node in schedule.order[schedule.boundary :]}
        for unit in self.grouping:
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
        elif unit.op.lowering:
            self._lowering(unit.op.lowering)(unit)
        else:
            self.instrs.append(
                Instr("call", unit.op.name, unit.op, unit.inputs, (unit.name,), unit.name)
            )

    def _lowering(self, name: str) -> Callable[[Node], None]:
        """Return the function that lowers nodes of a form of their own."""
        if name not in self._lowerings:
            self._lowerings[name] = higher(name)(self)
        return self._lowerings[name]

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
        value = builder.load(self.grouping.root(source), "each", node.type.dtype)
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
            source=self.grouping.root(source),
            indices=self.grouping.root(indices),
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
        group = self.grouping.group_of.get(name)
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
            value = builder.load(self.grouping.bytes_of(source), "each", dtype)
        builder.store(value, out, "each")
        body = builder.body()
        partition = loop_partition(*space, "columns", body, self.capacity, self._by_rows)
        self.instrs.append(kernel_instr(Loop(*space, "columns", body, partition), nodes))

    def _is_stored(self, group: Group, name: str) -> bool:
        """Return whether anything outside the group reads a node, or an alias of it."""
        if name in self.graph.roots:
            return True
        grouping = self.grouping
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


def kernel_instr(kernel: Single, nodes: tuple[str, ...]) -> Instr:
    """Return the instruction that runs a fused kernel."""
    kind = "gemm" if isinstance(kernel, Gemm) else kernel.axis
    buffers = inputs(kernel), kernel.body.written
    return Instr("kernel", kind, None, *buffers, nodes[-1], kernel, nodes)


def _last(unit: Group | Joined) -> Node:
    return unit.nodes[-1] if isinstance(unit, Group) else unit.node
