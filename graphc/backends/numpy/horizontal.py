"""Horizontal fusion: like updates of states that are adjacent in memory run as one loop.

For small parameters a call of NumPy takes longer than its work.  The heads of a group of updates
write to scratch; after the last of them one tail updates all states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from weakref import finalize

from numpy.lib.stride_tricks import as_strided

from graphc.backends.backend import Call, View
from graphc.backends.numpy.kernels import (
    Planned,
    bind_plan,
    bytes_of,
    plan_bytes,
)
from graphc.backends.numpy.planned import PlannedProgram
from graphc.backends.numpy.updates import HEAD, Tail, Update, update_of
from graphc.ir.op import Array
from graphc.ir.tensor_type import align
from graphc.kernels.program import Buffer, Instr, Program

if TYPE_CHECKING:
    from graphc.backends.numpy.chains import PlannedChain

MOST = 1 << 18
"""The most bytes that the heads of a group write."""


@dataclass(slots=True)
class Group:
    """Updates with the same tail, by the number of the instruction.

    `slot` is the part of the scratch that the heads write to, `room` the bytes of all.
    """

    tail: Tail
    slot: int
    updates: dict[int, Update] = field(default_factory=dict)
    room: int = 0
    reads: dict[object, Buffer] = field(default_factory=dict)
    writes: set[object] = field(default_factory=set)

    def add(self, program: Program, i: int, update: Update) -> None:
        """Add the update that an instruction makes."""
        self.updates[i] = update
        self.room += update.room
        for name in (*update.states, *update.numbers):
            buffer = program.buffers[name]
            self.reads[buffer[2:4]] = buffer
        self.writes.update(program.buffers[name][2:4] for name in program.instrs[i].outs)

    def tail_bytes(self, capacity: int) -> int:
        """Return the bytes of the temporaries of the one loop of all tails."""
        itemsize = next(iter(self.updates.values())).itemsize
        elements = sum(align(update.nbytes) // itemsize for update in self.updates.values())
        return plan_bytes(self.tail.plan(elements), capacity)

    def may_run_before(self, program: Program, instr: Instr) -> bool:
        """Return whether an instruction may run before the tails, which are delayed.

        It must not read what they write, nor write what they read.
        """
        buffers = program.buffers
        if any(buffers[name][2:4] in self.writes for name in instr.ins):
            return False
        return not any(self._is_read(program, buffers[name]) for name in instr.outs)

    def _is_read(self, program: Program, written: Buffer) -> bool:
        if written.space != "arena":
            return written[2:4] in self.reads
        mine = bytes_of(program, written)
        others = [bytes_of(program, b) for b in self.reads.values() if b.space == "arena"]
        return any(other.start < mine.stop and mine.start < other.stop for other in others)


_KNOWN: dict[int, Horizontal] = {}


def horizontal(program: Program) -> Horizontal:
    """Return the groups of a program, computed once."""
    found = _KNOWN.get(id(program))
    if found is None:
        found = _KNOWN[id(program)] = Horizontal(program)
        finalize(program, _KNOWN.pop, id(program))  # another program may get the id
    return found


class Horizontal(PlannedProgram):
    """The kernels of a program in groups, and the scratch that its instructions need."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        own = self.scratch
        found = _groups(program, self.kernels)
        self.groups = [group for group in found if len(group.updates) > 1]
        self.groups_of = {i: group for group in self.groups for i in group.updates}
        tails = [group.tail_bytes(program.capacity) for group in self.groups]
        base = align(max((*own, *tails), default=0))
        slots = max((group.slot + 1 for group in self.groups), default=0)
        self.starts = [base]
        """The offset of each slot in the scratch."""
        for slot in range(slots):
            most = max((g.room for g in self.groups if g.slot == slot), default=0)
            self.starts.append(self.starts[-1] + most)
        self.scratch = [
            self.starts[-1] if i in self.groups_of else need for i, need in enumerate(own)
        ]

    def bind(
        self, n: int, view: View, scratch: Array, skip: frozenset[int]
    ) -> dict[int, Sequence[Call]]:
        """Return the calls of the instructions whose updates run as one loop with others."""
        found: dict[int, Sequence[Call]] = {}
        for group in self.groups:
            start = self.starts[group.slot]
            heads = scratch[start : start + group.room]
            for members in _runs(group, view, skip):
                run = _Run(members, n, view, scratch, heads)
                found.update(run.calls())
                heads = heads[align(run.nbytes) :]
        return found

    def joined(self, i: int) -> Iterable[int]:
        """Return the instructions whose updates may run as one loop with that of another."""
        return self.groups_of[i].updates


class _Run:
    """Updates of a group whose states are adjacent, and the memory that they run on."""

    def __init__(
        self, members: Sequence[Member], n: int, view: View, scratch: Array, heads: Array
    ) -> None:
        self.members, self.n = members, n
        self.view, self.scratch, self.heads = view, scratch, heads
        self.first = members[0].update
        self.start, self.nbytes = members[0].start, members[-1].stop - members[0].start

    def calls(self) -> dict[int, list[Call]]:
        """Return the calls of each instruction; those of the last include the tail of all."""
        found = {one.i: list(self._head(one)) for one in self.members}
        found[max(found)].extend([*self._padding(), *self._tail()])
        return found

    def _head(self, one: Member) -> Sequence[Call]:
        (parts, kernel), part = one.update, slice(one.start - self.start, one.stop - self.start)
        if parts.head is None:
            return ()
        own = self.heads[part].view(parts.dtype)

        def view(place: str) -> Array:
            return own if place == HEAD else self.view(kernel.names[place])

        return bind_plan(parts.head, kernel.capacity, self.n, view, self.scratch)

    def _padding(self) -> Iterator[Call]:
        """Yield calls that zero the padding between the heads, which the tail reads too."""
        for one, other in pairwise(self.members if self.first.room else ()):
            between = self.heads[one.stop - self.start : other.start - self.start]
            if between.size:
                yield partial(between.fill, 0)

    def _tail(self) -> Sequence[Call]:
        update, (parts, kernel) = self.first, self.first
        states = (_flat(self.view(name), self.nbytes) for name in update.states)
        arrays = {f"state{k}": array for k, array in enumerate(states)}
        numbers = map(self.view, update.numbers)
        arrays.update((f"number{k}", array) for k, array in enumerate(numbers))
        arrays[HEAD] = self.heads[: self.nbytes if update.room else 0].view(parts.dtype)
        plan = parts.tail.plan(self.nbytes // update.itemsize)
        return bind_plan(plan, kernel.capacity, self.n, arrays.__getitem__, self.scratch)


def _groups(program: Program, kernels: Sequence[Planned | PlannedChain | None]) -> list[Group]:
    """Return the groups of updates whose tails may run together after the last of them."""
    made: list[Group] = []
    waiting: dict[object, Group] = {}
    for i, (instr, kernel) in enumerate(zip(program.instrs, kernels, strict=True)):
        if i == program.boundary:
            waiting = {}
        waiting = {kind: one for kind, one in waiting.items() if one.may_run_before(program, instr)}
        update = update_of(program, kernel) if isinstance(kernel, Planned) else None
        if update is None or update.room > MOST:
            continue
        group = waiting.get(update.kind)
        if group is None or group.room + update.room > MOST:
            taken = {one.slot for kind, one in waiting.items() if kind != update.kind}
            slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
            group = waiting[update.kind] = Group(update.parts.tail, slot)
            made.append(group)
        group.add(program, i, update)
    return made


class Member(NamedTuple):
    """An update with the addresses of its states; the first is from `start` to `stop`."""

    addresses: tuple[int, ...]
    i: int
    update: Update

    @property
    def start(self) -> int:
        """The address at which the first state begins."""
        return self.addresses[0]

    @property
    def stop(self) -> int:
        """The address at which the first state ends."""
        return self.start + self.update.nbytes

    def is_followed_by(self, other: Member) -> bool:
        """Return whether all states of another update begin after these and their padding."""
        size = align(self.stop - self.start)
        return other.addresses == tuple(address + size for address in self.addresses)


def _runs(group: Group, view: View, skip: frozenset[int]) -> Iterator[list[Member]]:
    """Yield each run of two or more updates of a group whose states are adjacent."""
    members = sorted(
        Member(tuple(_address(view(name)) for name in update.states), i, update)
        for i, update in group.updates.items()
        if i not in skip
    )
    run = members[:1]
    for member in members[1:]:
        if run[-1].is_followed_by(member):
            run.append(member)
            continue
        if len(run) > 1:
            yield run
        run = [member]
    if len(run) > 1:
        yield run


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _flat(array: Array, size: int) -> Array:
    """Return `size` bytes from the start of an array, as a vector."""
    return as_strided(array.reshape(-1), (size // array.itemsize,), (array.itemsize,))
