"""A graph to a program: schedule, lower, decide where each buffer lives, place the arena."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from itertools import chain

from graphc.graph import Graph
from graphc.lowering import Lowering
from graphc.memory import align, place
from graphc.merge_updates import merge_updates
from graphc.op import Op, Source
from graphc.ops.source import Constant, Input
from graphc.plan import Buffer, Instr, Program, Space, Storage
from graphc.schedule import Schedule, schedule
from graphc.tensor_type import TensorType


def build_program(name: str, graph: Graph, capacity: int, kernels: Container[str]) -> Program:
    """The program of a graph in which every node is needed, for up to `capacity` rows."""
    order = schedule(graph)
    low = Lowering(graph, order, capacity, kernels)
    return _Assignment(name, low, order).program()


@dataclass
class _Slot:
    """A storage in the making: the buffers that use its bytes in turn."""

    type: TensorType
    first: int
    last: int
    names: list[str] = field(default_factory=list)


class _Assignment:
    """Where each buffer of a lowered graph lives."""

    def __init__(self, name: str, low: Lowering, order: Schedule) -> None:
        self.name, self.low, self.order = name, low, order
        self.graph = low.graph
        self.space: dict[str, tuple[Space, str]] = {}
        self._assign_sources()
        self.gradient_offsets, self.gradients = self._assign_gradients()
        self.instrs, self.packs = merge_updates(
            self.graph, low.instrs, order.in_place, self._packable
        )
        if len(self.instrs) != len(low.instrs):
            low.instrs = self.instrs
            if not self.graph.gradients:
                low.border = len(self.instrs)
        self.first, self.last = self._lives()
        self.slots = self._share()

    def _assign_sources(self) -> None:
        for node in self.graph:
            if isinstance(node.op, Input):
                self.space[node.name] = ("feed", node.name)
            elif isinstance(node.op, Constant):
                self.space[node.name] = ("constant", node.name)
            elif isinstance(node.op, Source):
                self.space[node.name] = ("state", node.name)
        for name in self.low.constants:
            self.space[name] = ("constant", name)
        for value, state in self.order.in_place.items():
            self.space[value] = ("state", state)
        for state, value in self.order.commits:
            self.space[f"{state} <- {value}"] = ("state", state)

    def _assign_gradients(self) -> tuple[dict[str, int], dict[str, str]]:
        """Gradients asked for stand in one block, in the order of `wrt`."""
        offsets: dict[str, int] = {}
        buffers: dict[str, str] = {}
        offset = 0
        for wrt, value in self.graph.gradients.items():
            buffer = value
            if value in self.space or self.low.root(value) != value:
                buffer = f"gradient:{wrt}"
                self.low.copy(value, buffer, self.low.type(value), value)
            self.space[buffer] = ("gradient", wrt)
            offsets[buffer] = offset
            buffers[wrt] = buffer
            offset += align(self.low.type(buffer).nbytes(self.low.capacity))
        return offsets, buffers

    def _packable(self, name: str) -> bool:
        return self.low.root(name) == name and name not in self.space

    def _lives(self) -> tuple[dict[str, int], dict[str, int]]:
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for i, instr in enumerate(self.instrs):
            for out in instr.outs:
                first[out] = last[out] = i
            for operand in (*instr.ins, *instr.scratch):
                root = self.low.root(operand)
                last[root] = i
                first.setdefault(root, i)
        end = len(self.instrs)  # outputs are read when the run is over
        for value in self.graph.outputs.values():
            root = self.low.root(value)
            last[root] = max(last.get(root, 0), end)
            first.setdefault(root, 0)
        return first, last

    def _share(self) -> dict[str, _Slot]:
        """For each arena buffer its slot; a kernel's result takes over a dying operand's."""
        slots: dict[str, _Slot] = {}
        packed = {name for pack in self.packs for name in pack}
        for i, instr in enumerate(self.instrs):
            for name in instr.scratch:
                if name in self.low.scratches:
                    slots[name] = _Slot(self.low.type(name), i, i, [name])
            for out in instr.outs:
                if out in self.space:
                    continue
                dying = None if out in packed else self._dying_operand(instr, out, i, slots, packed)
                slot = _Slot(self.low.type(out), i, i) if dying is None else slots[dying]
                slot.last = max(self.last[out], slot.last)
                slot.names.append(out)
                slots[out] = slot
        return slots

    def _dying_operand(
        self, instr: Instr, out: str, i: int, slots: Mapping[str, _Slot], packed: Container[str]
    ) -> str | None:
        if instr.kind != "call" or instr.op is None:
            return None
        for position in instr.op.inplace:
            operand = instr.ins[position] if position < len(instr.ins) else ""
            root = self.low.root(operand)
            slot = slots.get(root)
            if slot is None or root in packed or self.low.type(root) != self.low.type(out):
                continue
            elsewhere = [
                p
                for p, o in enumerate(instr.ins)
                if p not in instr.op.inplace and self.low.root(o) in slot.names
            ]
            if slot.last == i and self.low.type(operand) == self.low.type(out) and not elsewhere:
                return root
        return None

    def program(self) -> Program:
        """Place the storages and write everything down."""
        storages, where = self._storages()
        arena = place([storage.range_at(self.low.capacity) for storage in storages])
        buffers = self._buffers({k: (key, arena.offsets[key] + o) for k, (key, o) in where.items()})
        outputs = dict(self.graph.outputs)
        return Program(
            self.name,
            self.graph,
            self.low.capacity,
            tuple(self.instrs),
            buffers,
            tuple(storages),
            arena,
            self.low.border,
            outputs,
            self.gradients,
            index_bounds(self.graph),
        )

    def _storages(self) -> tuple[list[Storage], dict[str, tuple[str, int]]]:
        """The storages, and for each buffer its storage and the offset inside."""
        where: dict[str, tuple[str, int]] = {}
        storages: list[Storage] = []
        for pack in self.packs:
            slots = [self.slots[name] for name in pack]
            key, offset = pack[0], 0
            for name, slot in zip(pack, slots, strict=True):
                where[name] = (key, offset)
                offset += slot.type.nbytes(1)
            ends = min(s.first for s in slots), max(s.last for s in slots)
            storages.append(Storage(key, tuple(s.type for s in slots), *ends))
        for slot in {id(slot): slot for slot in self.slots.values()}.values():
            if slot.names[0] not in where:
                key = slot.names[0]
                where.update((name, (key, 0)) for name in slot.names)
                storages.append(Storage(key, (slot.type,), slot.first, slot.last))
        return storages, where

    def _buffers(self, arena: Mapping[str, tuple[str, int]]) -> dict[str, Buffer]:
        """The buffers of nodes in the graph's order, then those that lowering added."""
        roots, first, last = self.low.roots, self.first, self.last
        buffers: dict[str, Buffer] = {}
        types = ((node.name, node.type) for node in self.graph)
        for name, type in chain(types, self.low.types.items()):
            root = roots.get(name, name)
            found = arena.get(root)
            if found is not None:
                space: Space = "arena"
                key, offset = found
            elif root in self.space:
                space, key = self.space[root]
                offset = self.gradient_offsets.get(root, 0)
            else:
                continue
            life = first.get(root, 0), last.get(root, -1)
            buffers[name] = Buffer(name, type, space, key, offset, *life)
        return buffers


def index_bounds(graph: Graph) -> dict[str, int]:
    """For each integer feed that an op indexes by: how many entries there are."""
    bounds: dict[str, int] = {}
    for node in graph:
        if type(node.op).index_bounds is Op.index_bounds:
            continue  # most ops index nothing
        limits = node.op.index_bounds([graph[operand].type for operand in node.inputs])
        for position, limit in limits.items():
            name = _through_aliases(graph, node.inputs[position])
            if isinstance(graph[name].op, Input):
                bounds[name] = min(limit, bounds.get(name, limit))
    return bounds


def _through_aliases(graph: Graph, name: str) -> str:
    from graphc.ops.shape import Cast, Reshape, StopGradient

    while isinstance(graph[name].op, (Reshape, StopGradient, Cast)):
        name = graph[name].inputs[0]
    return name
