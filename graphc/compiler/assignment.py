"""The assignment of memory to the buffers of a program.

Live ranges of buffers are counted in epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

from graphc.compiler.index_bounds import index_bounds
from graphc.compiler.lowering import Lowering
from graphc.compiler.memory import place
from graphc.compiler.schedule import Schedule
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import ITEMSIZE, TensorType, align
from graphc.kernels.barriers import (
    ALL,
    SPARING_BYTES,
    WAITING_BYTES,
    Arrangement,
    Barriers,
    Region,
)
from graphc.kernels.program import Arena, Buffer, Instr, LiveRange, Program, Space, Storage

Planner = Callable[[str, Graph, Sequence[LiveRange]], Arena]
"""Gives the live ranges of a program, by its name and graph, their places."""
Scheduler = Callable[[str, Sequence[Instr], int, Callable[[str], str]], Arrangement]
"""Arranges instructions, of which so many are forward; the function names a buffer's memory."""
FLAT = "%exchange"
"""The storage that holds all buckets in a row."""


@dataclass(slots=True, eq=False)
class Slot:
    """A storage under construction: bytes that some buffers use in turn."""

    key: str
    type: TensorType
    first: int
    last: int
    offset: int = 0
    held: list[str] = field(default_factory=list)
    """The buffers that use it, without those of earlier epochs."""
    epoch: int = -1
    part: Region | None = None
    """The part that a thread touches in that epoch; ALL if it touches several."""


class Assignment:
    """The assignment of memory to the buffers of a program, whose kernels threads share.

    Two buffers have the same bytes only if a barrier separates their live ranges, or if each thread
    writes in the one exactly the bytes that it alone touched in the other.

    Buffers are numbered, and their properties are kept in lists: for a large graph, looking
    things up by name would take most of the time.
    """

    def __init__(
        self,
        name: str,
        low: Lowering,
        order: Schedule,
        backend: str,
        scheduler: Scheduler | None = None,
        sparing: bool = False,
        carried: Mapping[str, str] | None = None,
    ) -> None:
        self.carried = carried
        """For the step of a loop: the results that it hands on, and the feeds that they become."""
        self.name, self.low, self.order, self.backend = name, low, order, backend
        self.graph = low.graph
        self.space: dict[str, tuple[Space, str]] = {}
        self._assign_sources()
        self.outputs = dict(self.graph.outputs)
        if carried is not None:
            self._assign_results()
        self.gradient_offsets, self.gradients = self._assign_gradients()
        self.arranged = self._with_barriers(scheduler, sparing)
        self.low.boundary = self.arranged.boundary
        self.instrs = self.arranged.instrs
        epochs = self.arranged.epochs
        self.times = [*epochs, epochs[-1] + 1 if epochs else 0]
        """The epoch of each instruction, and that of the end."""
        self.names = [*self.graph.nodes, *low.types]
        """The buffers by number: nodes in the graph's order, then those that lowering added."""
        self.types = [*(node.type for node in self.graph), *low.types.values()]
        self.spaces = list(map(self.space.get, self.names))
        self.root = {name: i for i, name in enumerate(self.names)}
        """For each name, the number of the buffer whose bytes it shares."""
        self.root.update([(alias, self.root[root]) for alias, root in low.roots.items()])
        self.first, self.last = self._lives()
        self.made: list[Slot] = []
        self.flat = self._flat_slots()
        self.slots: list[Slot | None] = [self.flat.get(i) for i in range(len(self.types))]
        """The slot of each arena buffer."""
        self._share()

    # ------------------------------------------------------------------ spaces

    def _assign_sources(self) -> None:
        for node in self.graph:
            op = node.op
            if op.is_source:
                kind: Space = "constant" if op.is_constant else "state"
                self.space[node.name] = ("feed" if op.is_input else kind, node.name)
        for value, state in self.order.in_place.items():
            self.space[value] = ("state", state)
        for state, value in self.order.commits:
            self.space[f"{state} <- {value}"] = ("state", state)

    def _assign_results(self) -> None:
        """Give each output of a step a buffer around it; one that has bytes already is copied."""
        for name, value in self.outputs.items():
            buffer = self.outputs[name] = self._own(value, f"result:{name}")
            self.space[buffer] = ("result", name)

    def _own(self, value: str, name: str) -> str:
        """Return the buffer of a value, or that of its copy `name` if it has bytes already."""
        if value not in self.space and self.low.root(value) == value:
            return value
        self.low.copy(value, name, self.low.type(value), value)
        return name

    def _assign_gradients(self) -> tuple[dict[str, int], dict[str, str]]:
        """Put the gradients asked for into one block, in the order of `wrt`."""
        offsets: dict[str, int] = {}
        buffers: dict[str, str] = {}
        offset = 0
        for wrt, value in self.graph.gradients.items():
            buffer = buffers[wrt] = self._own(value, f"gradient:{wrt}")
            self.space[buffer] = ("gradient", wrt)
            offsets[buffer] = offset
            offset += align(self.low.type(buffer).nbytes(self.low.capacity))
        return offsets, buffers

    # ------------------------------------------------------------------ time

    def _with_barriers(self, scheduler: Scheduler | None, sparing: bool) -> Arrangement:
        """Return the instructions in their order or a user's, with barriers between them."""
        low = self.low

        @cache
        def memory(name: str) -> str:
            root = low.root(name)
            space, key = self.space.get(root, ("arena", root))
            if space == "result" and self.carried is not None:
                return self.carried.get(key, root)
            return key if space == "state" else root

        @cache
        def nbytes(name: str) -> int:
            root = low.root(name)
            return 0 if root in self.space else low.type(root).nbytes(low.capacity)

        if scheduler is None:
            most = SPARING_BYTES if sparing else WAITING_BYTES
            return Barriers(low.instrs, low.boundary, memory, nbytes, low.capacity, most)
        return scheduler(self.name, low.instrs, low.boundary, memory)

    def _lives(self) -> tuple[list[int], list[int]]:
        """Return the first and last instruction of each buffer; 0 and -1 for an unused one."""
        root = self.root
        first, last = [0] * len(self.types), [-1] * len(self.types)
        for i, instr in enumerate(self.instrs):
            for name in chain(instr.outs, instr.ins):
                number = root[name]
                if last[number] < 0:
                    first[number] = i
                last[number] = i
        for value in self.outputs.values():
            last[root[value]] = len(self.instrs)  # outputs are read when the run is over
        if self.low.keeps:
            last = [len(self.instrs) if end >= 0 else end for end in last]
        return first, last

    # ------------------------------------------------------------------ slots

    def _flat_slots(self) -> dict[int, Slot]:
        """Return the slots of exchanged values, parts of one that holds all buckets in a row."""
        found: dict[int, Slot] = {}
        for name, offset in self.low.flat.items():
            number = self.root[name]
            ends = self.first[number], self.last[number]
            found[number] = Slot(FLAT, self.types[number], *ends, offset)
        return found

    def _share(self) -> None:
        """Give each arena buffer a slot, in turn with other buffers where that is safe.

        Within an epoch a slot that is free is used again by a buffer of the same type if each
        thread touches the same part of both; between epochs the arena shares the bytes.
        """
        free: dict[tuple[TensorType, Region], list[Slot]] = {}
        for i, instr in enumerate(self.instrs):
            if i and self.times[i] != self.times[i - 1]:
                free = {}
            ending = [] if instr.body is None else self._ending_operands(instr, i)
            for name in instr.outs:
                self._give_slot(name, instr, i, free, ending)
            dying: dict[str, Slot] = {}
            for name in chain(instr.ins, instr.outs):
                slot = self.slots[self.root[name]]
                if slot is not None and slot.last == i and slot.key != FLAT:
                    dying[slot.key] = slot
            for slot in dying.values():
                part = self._part_of(slot, i)
                if part is not None:
                    free.setdefault((slot.type, part), []).append(slot)

    def _give_slot(
        self,
        name: str,
        instr: Instr,
        i: int,
        free: dict[tuple[TensorType, Region], list[Slot]],
        ending: list[Slot],
    ) -> None:
        number = self.root[name]
        if self.spaces[number] is not None or self.slots[number] is not None:
            return  # a concatenation gets its slot with its first part
        if instr.body is None:
            slot = self._dying_operand(instr, number, i)
        else:
            slot = self._private_slot(number, i, free, ending)
        if slot is None:
            slot = Slot(self.names[number], self.types[number], i, i)
            self.made.append(slot)
        slot.held.append(self.names[number])
        if slot.epoch == self.times[i]:
            slot.part = self._part_with(slot.part, self.names[number], i)
        slot.last = max(self.last[number], slot.last)
        self.slots[number] = slot

    def _private_slot(
        self,
        number: int,
        i: int,
        free: dict[tuple[TensorType, Region], list[Slot]],
        ending: list[Slot],
    ) -> Slot | None:
        """Return a slot of which each thread touches the same part as of a result, or None.

        It is that of an operand that is read for the last time, or else the one freed last.
        """
        part = self._part_with(None, self.names[number], i)
        if part is None or part == ALL:
            return None
        for position, slot in enumerate(ending):
            if slot.type == self.types[number] and self._part_of(slot, i) == part:
                if self.last[number] > i:
                    del ending[position]
                return slot
        known = free.get((self.types[number], part))
        return known.pop() if known else None

    def _ending_operands(self, instr: Instr, i: int) -> list[Slot]:
        """Return the slots of operands that are read in place, and for the last time."""
        slots = [self.slots[root] for root in self._read_in_place(instr) if root not in self.flat]
        return list(dict.fromkeys(slot for slot in slots if slot is not None and slot.last == i))

    def _part_of(self, slot: Slot, i: int) -> Region | None:
        """Return the one part of a slot that a thread touches in the epoch of an instruction."""
        if slot.epoch != self.times[i]:
            slot.epoch, slot.part = self.times[i], None
            slot.held = [name for name in slot.held if self._lives_to(name, slot.epoch)]
            for name in slot.held:
                slot.part = self._part_with(slot.part, name, i)
        return None if slot.part == ALL else slot.part

    def _lives_to(self, name: str, epoch: int) -> bool:
        return self.times[self.last[self.root[name]]] >= epoch

    def _part_with(self, part: Region | None, name: str, i: int) -> Region | None:
        """Return the one part that a thread touches of a buffer and of others; ALL for several.

        None if it touches neither in the epoch of an instruction.
        """
        for _, _, region in self.arranged.touched[self.times[i]].get(name, ()):
            part = region if part in (None, region) else ALL
        return part

    def _dying_operand(self, instr: Instr, out: int, i: int) -> Slot | None:
        """Return the slot of a dying operand that the result of a call may overwrite, or None."""
        if instr.op is None:
            return None
        inplace, type = instr.op.inplace, self.types[out]
        for position in inplace:
            if position >= len(instr.ins):
                continue
            operand = instr.ins[position]
            root = self.root[operand]
            slot = self.slots[root]
            if slot is None or slot.last != i or root in self.flat or self.types[root] != type:
                continue
            others = (self.root[o] for p, o in enumerate(instr.ins) if p not in inplace)
            shared = any(self.slots[other] is slot for other in others)
            if self.low.type(operand) == type and not shared:
                return slot
        return None

    def _read_in_place(self, instr: Instr) -> list[int]:
        """Return the operands that are read only at the element that is written afterwards.

        Operands of which some columns are read, gathered operands and factors of a product are not.
        """
        assert instr.body is not None
        found: dict[int, set[str]] = {}
        body = instr.body.body
        for number in body.readers:
            op, _, kind, _, buffer, _ = body.steps[number]
            how = "gathered" if op == "fetch" else "columns" if buffer in self.low.views else kind
            found.setdefault(self.root[buffer], set()).add(how)
        for operand in instr.body.operands:
            found.setdefault(self.root[operand.buffer], set()).add("operand")
        return [root for root, kinds in found.items() if kinds == {"each"}]

    # ------------------------------------------------------------------ the program

    def program(self, planner: Planner | None = None) -> Program:
        """Place the storages and return the program."""
        storages = self._storages()
        ranges = [storage.range_at(self.low.capacity) for storage in storages]
        given = self.name, self.graph, ranges
        arena = planner(*given) if planner and ranges else place(ranges)
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
            self.low.boundary,
            self.outputs,
            self.gradients,
            index_bounds(self.graph),
            dict(self.low.roots),
            self.backend,
        )

    def _storages(self) -> list[Storage]:
        """Return a storage for every slot, and one for all buckets."""
        times = self.times
        made = [
            Storage(slot.key, (slot.type,), times[slot.first], times[slot.last])
            for slot in self.made
        ]
        return [*made, *self._flat()]

    def _flat(self) -> Iterator[Storage]:
        """Yield the one buffer of all buckets, if something is exchanged."""
        slots = self.flat.values()
        if slots:
            nbytes = max(slot.offset + align(slot.type.nbytes(1)) for slot in slots)
            part = TensorType((nbytes // ITEMSIZE["float32"],), "float32")
            ends = min(slot.first for slot in slots), max(slot.last for slot in slots)
            yield Storage(FLAT, (part,), *map(self.times.__getitem__, ends))

    def _buffers(self) -> dict[str, Buffer]:
        """Return the buffers in the order of their numbers; aliases lie where their roots do."""
        aliases, times = self.low.roots, self.times
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
            last = self.last[root]
            life = times[self.first[root]], times[last] if last >= 0 else -1
            view = self.low.views.get(name)
            part = (view.start, view.pitch) if view is not None else ()
            buffers[name] = Buffer(name, self.types[number], *home, *life, *part)
        return buffers
