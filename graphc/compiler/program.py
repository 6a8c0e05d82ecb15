"""From a graph to a program: schedule, lower, assign each buffer its memory, place the arena."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from graphc.base.work import spend_nodes
from graphc.compiler.lowering import Lowering
from graphc.compiler.memory import align, place
from graphc.compiler.merge_updates import merge_updates
from graphc.compiler.old_states import keep_old_states
from graphc.compiler.schedule import Schedule, schedule
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, Source
from graphc.ir.plan import Buffer, Instr, Program, Space, Storage
from graphc.ir.tensor_type import ITEMSIZE, TensorType
from graphc.ops.losses.label_hit import LabelHit
from graphc.ops.source import Constant, Input

LOWERED = 2
"""The number of nodes that are made in the time that one is scheduled, lowered and placed."""
FLAT = "%exchange"
"""The storage that holds all buckets in a row."""


def build_program(name: str, graph: Graph, capacity: int, backend: str) -> Program:
    """Return the program of a graph in which every node is needed, for up to `capacity` rows."""
    from graphc.kernels.assignment import KernelAssignment
    from graphc.kernels.lowering import KernelLowering

    spend_nodes(LOWERED * len(graph))
    graph = keep_old_states(graph)
    order = schedule(graph)
    fused = KernelLowering(graph, order, capacity, ())
    return KernelAssignment(name, fused, order, backend).program()


@dataclass(slots=True)
class Slot:
    """A storage under construction, or a part of one: bytes that some buffers use in turn."""

    key: str
    type: TensorType
    first: int
    last: int
    offset: int = 0


class Assignment:
    """The memory of each buffer of a lowered graph.

    Buffers are numbered, and their properties are kept in lists: for a large graph, looking
    things up by name would take most of the time.
    """

    def __init__(self, name: str, low: Lowering, order: Schedule, backend: str) -> None:
        self.name, self.low, self.order, self.backend = name, low, order, backend
        self.graph = low.graph
        self.space: dict[str, tuple[Space, str]] = {}
        self._assign_sources()
        self.gradient_offsets, self.gradients = self._assign_gradients()
        self.instrs, self.packs = self._arrange(order)
        self.names = [*self.graph.nodes, *low.types]
        """The buffers by number: nodes in the graph's order, then those that lowering added."""
        self.types = [*(node.type for node in self.graph), *low.types.values()]
        self.spaces = list(map(self.space.get, self.names))
        self.root = {name: i for i, name in enumerate(self.names)}
        """From each name to the number of the buffer whose bytes it shares."""
        self.root.update([(alias, self.root[root]) for alias, root in low.roots.items()])
        self.first, self.last = self._lives()
        self.made: list[Slot] = []
        self.flat = self._flat_slots()
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
        """Put the gradients asked for into one block, in the order of `wrt`."""
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

    def _arrange(self, order: Schedule) -> tuple[list[Instr], list[tuple[str, ...]]]:
        """Return the instructions with updates fused, and the buffers to place in a row."""
        instrs = self.low.instrs
        merged, packs = merge_updates(self.graph, instrs, order.in_place, self._packable)
        if len(merged) != len(instrs) and not self.graph.gradients:
            self.low.border = len(merged)
        return merged, packs

    def _time(self, i: int) -> int:
        """Return when an instruction runs, in the unit of live ranges."""
        return i

    def _packable(self, name: str) -> bool:
        placed = name in self.space or name in self.low.flat
        return self.low.root(name) == name and not placed

    def _flat_slots(self) -> dict[int, Slot]:
        """Return the slots of exchanged values, parts of one that holds all buckets in a row."""
        found: dict[int, Slot] = {}
        for name, offset in self.low.flat.items():
            number = self.root[name]
            ends = self.first[number], self.last[number]
            found[number] = Slot(FLAT, self.types[number], *ends, offset)
        return found

    def _lives(self) -> tuple[list[int], list[int]]:
        """Return the first and last instruction of each buffer; 0 and -1 for an unused one."""
        root = self.root
        first, last = [0] * len(self.types), [-1] * len(self.types)
        for i, instr in enumerate(self.instrs):
            for out in instr.outs:
                number = root[out]
                first[number] = first[number] if last[number] >= 0 else i
                last[number] = i
            for operand in chain(instr.ins, instr.scratch):
                number = root[operand]
                if last[number] < 0:
                    first[number] = i
                last[number] = i
        for value in self.graph.outputs.values():
            last[root[value]] = len(self.instrs)  # outputs are read when the run is over
        return first, last

    def _share(self) -> list[Slot | None]:
        """Return the slot of each arena buffer; a kernel's result takes over a dying operand's."""
        slots: list[Slot | None] = [self.flat.get(i) for i in range(len(self.types))]
        packed = {self.root[name] for pack in self.packs for name in pack} | self.flat.keys()
        for i, instr in enumerate(self.instrs):
            for name in instr.scratch:
                if name in self.low.scratches:
                    slots[self.root[name]] = self._new_slot(self.root[name], i)
            for out in instr.outs:
                number = self.root[out]
                if self.spaces[number] is not None or number in self.flat:
                    continue
                slot = None
                if number not in packed and instr.op is not None and instr.op.inplace:
                    slot = self._dying_operand(instr, number, i, slots, packed)
                slot = slot or self._new_slot(number, i)
                slot.last = max(self.last[number], slot.last)
                slots[number] = slot
        return slots

    def _new_slot(self, number: int, i: int) -> Slot:
        slot = Slot(self.names[number], self.types[number], i, i)
        self.made.append(slot)
        return slot

    def _dying_operand(
        self,
        instr: Instr,
        out: int,
        i: int,
        slots: Sequence[Slot | None],
        packed: Container[int],
    ) -> Slot | None:
        """Return the slot that a result may take over: of an operand of its type that dies here."""
        if instr.kind != "call" or instr.op is None:
            return None
        inplace, type = instr.op.inplace, self.types[out]
        for position in inplace:
            if position >= len(instr.ins):
                continue
            operand = instr.ins[position]
            root = self.root[operand]
            slot = slots[root]
            if slot is None or slot.last != i or root in packed or self.types[root] != type:
                continue
            others = (self.root[o] for p, o in enumerate(instr.ins) if p not in inplace)
            elsewhere = any(slots[other] is slot for other in others)
            if self.low.type(operand) == type and not elsewhere:
                return slot
        return None

    def program(self) -> Program:
        """Place the storages and return the program."""
        storages = self._storages()
        arena = place([storage.range_at(self.low.capacity) for storage in storages])
        for slot in (*self.made, *self.flat.values()):
            slot.offset += arena.offsets[slot.key]
        return Program(
            self.name,
            self.graph,
            self.low.capacity,
            tuple(self.instrs),
            self._buffers(),
            tuple(storages),
            arena,
            self.low.border,
            dict(self.graph.outputs),
            self.gradients,
            index_bounds(self.graph),
            dict(self.low.roots),
            self.backend,
        )

    def _storages(self) -> list[Storage]:
        """Return the storages: those of several buffers in a row, and one for every other slot."""
        packed = {name for pack in self.packs for name in pack}
        alone = [slot for slot in self.made if slot.key not in packed]
        storages = [self._packed(pack) for pack in self.packs]
        storages += [self._alone(slot) for slot in alone]
        return [*storages, *self._flat()]

    def _flat(self) -> Iterator[Storage]:
        """Yield the one buffer of all buckets, if something is exchanged."""
        slots = self.flat.values()
        if slots:
            nbytes = max(slot.offset + align(slot.type.nbytes(1)) for slot in slots)
            part = TensorType((nbytes // ITEMSIZE["float32"],), "float32")
            ends = min(slot.first for slot in slots), max(slot.last for slot in slots)
            yield Storage(FLAT, (part,), *map(self._time, ends))

    def _alone(self, slot: Slot) -> Storage:
        ends = self._time(slot.first), self._time(slot.last)
        return Storage(slot.key, (slot.type,), *ends)

    def _packed(self, pack: Sequence[str]) -> Storage:
        """Return one storage for these buffers, whose slots become its parts."""
        slots = [slot for name in pack if (slot := self.slots[self.root[name]]) is not None]
        offset = 0
        for slot in slots:
            slot.key, slot.offset = pack[0], offset
            offset += slot.type.nbytes(1)
        ends = min(slot.first for slot in slots), max(slot.last for slot in slots)
        return Storage(pack[0], tuple(slot.type for slot in slots), *ends)

    def _buffers(self) -> dict[str, Buffer]:
        """Return the buffers in the order of their numbers; aliases lie where their roots do."""
        aliases = self.low.roots
        buffers: dict[str, Buffer] = {}
        for number, name in enumerate(self.names):
            root = self.root[name] if name in aliases else number
            slot, found = self.slots[root], self.spaces[root]
            if slot is not None:
                home: tuple[Space, str, int] = ("arena", slot.key, slot.offset)
            elif found is not None:
                home = (*found, self.gradient_offsets.get(self.names[root], 0))
            else:
                continue
            life = self._time(self.first[root]), self._time(self.last[root])
            view = self.low.views.get(name)
            part = (view.start, view.pitch) if view is not None else ()
            buffers[name] = Buffer(name, self.types[number], *home, *life, *part)
        return buffers


def index_bounds(graph: Graph) -> dict[str, int]:
    """Return, for each integer feed that is used as indices, how many entries it may index."""
    return {name: limit for name, (limit, _) in indexed(graph).items()}


def indexed(graph: Graph) -> dict[str, tuple[int, Node]]:
    """Return the same bounds, each with the node that sets it."""
    bounds: dict[str, tuple[int, Node]] = {}
    for node in graph:
        if type(node.op).index_bounds is Op.index_bounds:
            continue  # most ops index nothing
        limits = node.op.index_bounds([graph[operand].type for operand in node.inputs])
        for position, limit in limits.items():
            name = _through_aliases(graph, node.inputs[position])
            if isinstance(graph[name].op, Input) and limit < bounds.get(name, (limit + 1,))[0]:
                bounds[name] = limit, node
    return bounds


def ignored_labels(graph: Graph) -> dict[str, int]:
    """Return, for integer feeds that are only labels of losses, the label that all these ignore."""
    found: dict[str, set[int | None]] = {}
    for node in graph:
        for position in node.op.index_bounds([graph[operand].type for operand in node.inputs]):
            name = _through_aliases(graph, node.inputs[position])
            ignored = node.op.ignore if isinstance(node.op, LabelHit) else None
            found.setdefault(name, set()).add(ignored)
    single = {name: one for name, (one, *others) in found.items() if not others}
    return {name: one for name, one in single.items() if one is not None}


def _through_aliases(graph: Graph, name: str) -> str:
    from graphc.ops.again import After
    from graphc.ops.shape import Cast, Reshape, StopGradient

    while isinstance(graph[name].op, (Reshape, StopGradient, Cast, After)):
        name = graph[name].inputs[0]
    return name
