"""The memory of the buffers of fused kernels, whose live ranges are counted in epochs."""

from __future__ import annotations

from functools import cache

from graphc.compiler.program import Assignment, Slot
from graphc.compiler.schedule import Schedule
from graphc.ir.plan import Instr
from graphc.ir.tensor_type import TensorType
from graphc.kernels.barriers import ALL, Barriers, Region
from graphc.kernels.kernel import Gemm


class KernelAssignment(Assignment):
    """The buffers of a program whose kernels are shared by threads.

    Two buffers have the same bytes only if a barrier separates their live ranges, or if each thread
    writes in the one exactly the bytes that it alone touched in the other.
    """

    def _arrange(self, order: Schedule) -> tuple[list[Instr], list[tuple[str, ...]]]:
        """Return the instructions with barriers between them; none are merged."""

        @cache
        def memory(name: str) -> str:
            root = self.low.root(name)
            return order.in_place.get(root, root)

        @cache
        def nbytes(name: str) -> int:
            root = self.low.root(name)
            return 0 if root in self.space else self.low.type(root).nbytes(self.low.capacity)

        arranged = Barriers(self.low.instrs, self.low.border, memory, nbytes)
        self.low.border = arranged.border
        self.epochs = arranged.epochs
        self._regions: dict[tuple[int, str], list[Region]] = {}
        for instr, epoch in zip(arranged.instrs, arranged.epochs, strict=True):
            if instr.body is not None:
                for block, _, region in arranged.accesses(instr):
                    regions = self._regions.setdefault((epoch, block), [])
                    if region not in regions:
                        regions.append(region)
        return arranged.instrs, []

    def _time(self, i: int) -> int:
        """Return the epoch of an instruction, or of the end."""
        if i < len(self.epochs):
            return self.epochs[i] if i >= 0 else i
        return self.epochs[-1] + 1 if self.epochs else 0

    def _share(self) -> list[Slot | None]:
        slots: list[Slot | None] = [self.flat.get(i) for i in range(len(self.types))]
        self._held: dict[str, list[str]] = {}
        free: dict[TensorType, list[Slot]] = {}
        for i, instr in enumerate(self.instrs):
            if i and self.epochs[i] != self.epochs[i - 1]:
                free = {}
            for name in instr.scratch:
                if name in self.low.scratches:
                    slots[self.root[name]] = self._new_slot(self.root[name], i)
            for name in instr.outs:
                self._give_slot(name, instr, i, slots, free)
            for number in dict.fromkeys(self.root[name] for name in (*instr.ins, *instr.outs)):
                slot = slots[number]
                if slot is None or slot.last != i or number in self.flat:
                    continue
                known = free.setdefault(slot.type, [])
                if slot not in known:
                    known.append(slot)
        return slots

    def _give_slot(
        self,
        name: str,
        instr: Instr,
        i: int,
        slots: list[Slot | None],
        free: dict[TensorType, list[Slot]],
    ) -> None:
        number = self.root[name]
        if self.spaces[number] is not None or slots[number] is not None:
            return  # a value joined of several has its slot from the first of them on
        slot = None
        if instr.body is None:
            slot = self._dying_operand(instr, number, i, slots, self.flat)
        else:
            dying = [slots[root] for root in self._read_in_place(instr) if root not in self.flat]
            candidates = [s for s in dying if s is not None and s.last == i]
            candidates += reversed(free.get(self.types[number], []))
            epoch = self.epochs[i]
            slot = next((s for s in candidates if self._is_private(s, number, epoch)), None)
        if slot is None:
            slot = self._new_slot(number, i)
        elif slot in free.get(slot.type, ()):
            free[slot.type].remove(slot)
        self._held.setdefault(slot.key, []).append(self.names[number])
        slot.last = max(self.last[number], slot.last)
        slots[number] = slot

    def _is_private(self, slot: Slot, number: int, epoch: int) -> bool:
        """Return whether each thread touches the same part of a slot and a buffer in this epoch."""
        if slot.type != self.types[number]:
            return False
        names = (*self._held.get(slot.key, ()), self.names[number])
        regions = [region for name in names for region in self._regions.get((epoch, name), ())]
        return bool(regions) and regions[0] != ALL and all(r == regions[0] for r in regions)

    def _read_in_place(self, instr: Instr) -> list[int]:
        """Return the operands that are read only at the element that is written afterwards.

        Operands of which some columns are read, gathered operands and factors of a product are not.
        """
        assert instr.body is not None
        found: dict[int, set[str]] = {}
        for step in instr.body.body.steps:
            if step.op == "fetch":
                found.setdefault(self.root[step.buffer], set()).add("elsewhere")
            if step.op == "load":
                span = "columns" if step.buffer in self.low.views else step.span
                found.setdefault(self.root[step.buffer], set()).add(span)
        if isinstance(instr.body, Gemm):
            for factor in (instr.body.a, instr.body.b):
                found.setdefault(self.root[factor], set()).add("factor")
        return [root for root, spans in found.items() if spans == {"each"}]
