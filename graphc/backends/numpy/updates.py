"""Kernels that end in an update of states: the head computes the gradient, the tail updates.

Tails are elementwise, so that those of adjacent states can run as one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from graphc.backends.numpy.body import BodyPlan, Shared
from graphc.backends.numpy.kernels import Planned, known_plan
from graphc.ir.expr import Body, Broadcast, Step, Store
from graphc.ir.tensor_type import ITEMSIZE, align
from graphc.kernels.interpret import FUNCTIONS
from graphc.kernels.kernel import BatchedGemm, Loop, ScatterAdd, Single
from graphc.kernels.program import Buffer, Program

HEAD = "%head"
"""The buffer that a head writes and its tail reads."""
HEADS = ("product", "sum", "load")
"""The steps after which a kernel is cut."""


@dataclass(frozen=True)
class Tail:
    """An elementwise update of buffers "state0", ... that reads numbers "number0", ..."""

    body: Body
    shared: Shared

    def plan(self, elements: int) -> BodyPlan:
        """Return the plan of an update of `elements` elements."""
        return known_plan(Loop(1, elements, "columns", self.body, "none"), self.shared)


class Parts(NamedTuple):
    """A kernel cut in two: its head, if it has one, its tail, and the buffers of the tail."""

    head: BodyPlan | None
    tail: Tail
    states: tuple[str, ...]
    numbers: tuple[str, ...]
    elements: int
    dtype: str


class Update(NamedTuple):
    """A kernel of a program, cut into head and tail."""

    parts: Parts
    kernel: Planned

    @property
    def states(self) -> list[str]:
        """The names of the states that it reads and writes."""
        return [self.kernel.names[place] for place in self.parts.states]

    @property
    def numbers(self) -> list[str]:
        """The names of the numbers that it reads, such as a rate."""
        return [self.kernel.names[place] for place in self.parts.numbers]

    @property
    def kind(self) -> object:
        """A key that is equal for all updates that can be fused."""
        return id(self.parts.tail), *self.numbers

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return ITEMSIZE[self.parts.dtype]

    @property
    def nbytes(self) -> int:
        """The bytes of each state, and of what the head writes."""
        return self.parts.elements * self.itemsize

    @property
    def room(self) -> int:
        """The bytes that the head takes, with padding."""
        return 0 if self.parts.head is None else align(self.nbytes)


def update_of(program: Program, kernel: Planned) -> Update | None:
    """Return a kernel cut in two, or None if it does not end in an update of a fixed size."""
    if kernel.plan is None:
        return None
    buffers = [(place, program.buffers[name]) for place, name in kernel.names.items()]
    spaces = {place: buffer.space for place, buffer in buffers}
    if any(spaces[store.buffer] != "state" for store in kernel.plan.kernel.body.stores):
        return None
    packed = frozenset(place for place, buffer in buffers if _has_neighbours(program, buffer))
    parts = _parts(kernel.plan, packed)
    return None if parts is None else Update(parts, kernel)


def _has_neighbours(program: Program, buffer: Buffer) -> bool:
    """Return whether a buffer is adjacent to others in memory, as a state is."""
    given = buffer.key in program.fed_gradients
    return not buffer.pitch and (buffer.space == "state" or given)


@lru_cache(maxsize=4096)
def _parts(plan: BodyPlan, packed: frozenset[str]) -> Parts | None:
    """Return the parts of a kernel; its buffers in `packed` lie side by side with others."""
    kernel = plan.kernel
    if isinstance(kernel, ScatterAdd | BatchedGemm):
        return None
    cut = _Cut(kernel, packed)
    return cut.parts(plan.shared) if cut.is_possible() else None


@lru_cache(maxsize=4096)
def _known(tail: Tail) -> Tail:
    """Return one object for all equal tails."""
    return tail


class _Cut:
    """A kernel that is cut after the step `at`: a product, a sum, or the load of a gradient.

    `at` is None if all buffers that the kernel reads have neighbours.
    """

    def __init__(self, kernel: Single, packed: frozenset[str]) -> None:
        self.kernel, self.packed = kernel, packed
        self.steps, self.stores = kernel.body.steps, kernel.body.stores
        self.rows, self.columns = kernel.space
        own = (*FUNCTIONS, "load", "const")
        self.others = [i for i, step in enumerate(self.steps) if step.op not in own]
        self.at = self.others[0] if self.others else self._foreign()
        self.broadcast: Broadcast = "each" if self.at is None else self.steps[self.at].broadcast
        self.elements = self._size(self.broadcast)
        self.stored = [store.step for store in self.stores]
        self.tail = _needed(self.steps, self.stored, self.at)

    def _foreign(self) -> int | None:
        """Return the first load of elements that have no neighbours."""
        return next((i for i, s in enumerate(self.steps) if not self._may_load(s)), None)

    def _may_load(self, step: Step) -> bool:
        """Return whether a step loads one number, elements that have neighbours, or nothing."""
        return step.op != "load" or step.buffer in self.packed or self._size(step.broadcast) == 1

    def _size(self, broadcast: Broadcast) -> int:
        """Return the number of elements of a value, or 0 if it depends on the batch."""
        rows = self.rows if broadcast in ("each", "row") else 1
        columns = self.columns if broadcast in ("each", "column") else 1
        return rows * columns if isinstance(rows, int) and isinstance(columns, int) else 0

    def is_possible(self) -> bool:
        """Return whether the tail is elementwise, and what it reads and writes has neighbours."""
        if self.elements <= 1 or len(self.others) > 1:
            return False
        if self.at is not None and self.steps[self.at].op not in HEADS:
            return False
        tail, stored = ([self.steps[i] for i in of] for of in (self.tail, self.stored))
        head = [] if self.at is None else [self.steps[self.at]]
        in_memory = [*stored, *head, *(s for s in tail if s.op == "load" and self._is_large(s))]
        return (
            self.at not in self.stored
            and all(self._size(step.broadcast) in (1, self.elements) for step in tail)
            and all(self._size(store.broadcast) == self.elements for store in self.stores)
            and all(map(self._may_load, tail))
            and len({ITEMSIZE[step.dtype] for step in in_memory}) == 1
        )

    def _is_large(self, step: Step) -> bool:
        return self._size(step.broadcast) != 1

    def parts(self, shared: Shared) -> Parts:
        """Return the head and the tail; `shared` lists the buffers that share bytes."""
        order = self.tail if self.at is None else [self.at, *self.tail]
        number = {i: place for place, i in enumerate(order)}
        states: dict[str, str] = {}
        numbers: dict[str, str] = {}
        steps: list[Step] = []
        for i in order:
            step, large = self.steps[i], self._is_large(self.steps[i])
            if i == self.at:
                steps.append(Step("load", (), "each", step.dtype, HEAD))
                continue
            buffer = step.buffer
            if buffer and large:
                buffer = states.setdefault(buffer, f"state{len(states)}")
            elif buffer:
                buffer = numbers.setdefault(buffer, f"number{len(numbers)}")
            args = tuple(number[arg] for arg in step.args)
            broadcast: Broadcast = "each" if large else "one"
            steps.append(step._replace(args=args, broadcast=broadcast, buffer=buffer))
        stores = [
            Store(states.setdefault(s.buffer, f"state{len(states)}"), number[s.step], "each")
            for s in self.stores
        ]
        met = [(states[a], states[b], how) for a, b, how in shared if a in states]
        tail = _known(Tail(Body(tuple(steps), tuple(stores)), tuple(met)))
        dtype = self.steps[self.stored[0]].dtype
        return Parts(self._head(), tail, tuple(states), tuple(numbers), self.elements, dtype)

    def _head(self) -> BodyPlan | None:
        """Return the plan of the kernel that computes the input of the tail."""
        if self.at is None:
            return None
        order = _needed(self.steps, [self.at])
        number = {i: place for place, i in enumerate(order)}
        steps = [
            self.steps[i]._replace(args=tuple(number[arg] for arg in self.steps[i].args))
            for i in order
        ]
        body = Body(tuple(steps), (Store(HEAD, number[self.at], self.broadcast),))
        return known_plan(replace(self.kernel, body=body), ())


def _needed(steps: Sequence[Step], of: Sequence[int], behind: int | None = None) -> list[int]:
    """Return the steps `of` and those they need, in order, up to and without `behind`."""
    found: set[int] = set()
    todo = list(of)
    while todo:
        i = todo.pop()
        if i not in found and i != behind:
            found.add(i)
            todo.extend(steps[i].args)
    return sorted(found)
