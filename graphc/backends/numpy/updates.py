"""Kernels that end in an update of states: the head computes the gradient, the tail updates.

Tails are elementwise, so that those of states that lie side by side can be one loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from graphc.backends.numpy.body import BodyPlan
from graphc.backends.numpy.kernels import known_plan, overlaps
from graphc.ir.plan import Program
from graphc.ir.tensor_type import ITEMSIZE
from graphc.kernels.body import Body, Span, Step, Store
from graphc.kernels.functions import FUNCTIONS
from graphc.kernels.kernel import Gemm, Kernel, Loop, Permutation, ScatterAdd, space

HEAD = "%head"
"""The buffer that a head writes and its tail reads."""
HEADS = ("product", "sum", "load")
"""The steps that a kernel is cut behind."""


class Tail(NamedTuple):
    """What updates have in common that differ in their states only.

    In the body the states are "0", "1", ...; `shared` says which of them share bytes.
    """

    body: Body
    shared: tuple[tuple[str, str, str], ...]

    def plan(self, elements: int) -> BodyPlan:
        """Return the plan of the update of so many elements."""
        return known_plan(Loop(1, elements, "columns", self.body, "none"), self.shared)

    @property
    def numbers(self) -> Iterator[str]:
        """The buffers that hold one number, such as a rate."""
        return (s.buffer for s in self.body.steps if s.op == "load" and s.span == "one")


class Update(NamedTuple):
    """A kernel cut in two: its tail, the states that this updates, and its head if it has one."""

    tail: Tail
    states: tuple[str, ...]
    head: Kernel | None
    elements: int
    itemsize: int

    @property
    def nbytes(self) -> int:
        """The bytes that the head writes."""
        return 0 if self.head is None else self.elements * self.itemsize


def update_of(program: Program, kernel: Kernel) -> Update | None:
    """Return a kernel in its parts, or None if it does not end in an update of a fixed size."""
    if any(program.buffers[name].space != "state" for name in kernel.body.written):
        return None
    if isinstance(kernel, (Permutation, ScatterAdd)):
        return None
    if isinstance(kernel, Gemm) and kernel.stack is not None:
        return None
    cut = _Cut(program, kernel)
    return cut.update() if cut.is_possible() else None


class _Cut:
    """A kernel that is cut behind the step `at`: a product, a sum, or the load of a gradient.

    It is None if all that the kernel reads has neighbours.
    """

    def __init__(self, program: Program, kernel: Kernel) -> None:
        self.program, self.kernel = program, kernel
        self.steps, self.stores = kernel.body.steps, kernel.body.stores
        self.rows, self.columns = space(kernel)
        own = (*FUNCTIONS, "load", "const")
        self.others = [i for i, step in enumerate(self.steps) if step.op not in own]
        self.at = self.others[0] if self.others else self._foreign()
        self.span: Span = "each" if self.at is None else self.steps[self.at].span
        self.elements = self._size(self.span)
        self.tail = _needed(self.steps, [store.step for store in self.stores], self.at)

    def _foreign(self) -> int | None:
        """Return the first load of elements that have no neighbours."""
        loads = (i for i, step in enumerate(self.steps) if step.op == "load")
        return next((i for i in loads if not self._has_neighbours(self.steps[i])), None)

    def _has_neighbours(self, step: Step) -> bool:
        """Return whether a load is of one number, or of what lies in memory as states do."""
        buffer = self.program.buffers[step.buffer]
        given = buffer.space == "feed" and buffer.key.startswith("gradient:")
        apart = not buffer.pitch and (buffer.space == "state" or given)
        return apart or self._size(step.span) == 1

    def _size(self, span: Span) -> int:
        """Return the number of elements of a value, or 0 if it depends on the batch."""
        rows = self.rows if span in ("each", "row") else 1
        columns = self.columns if span in ("each", "column") else 1
        return rows * columns if isinstance(rows, int) and isinstance(columns, int) else 0

    def is_possible(self) -> bool:
        """Return whether the tail is elementwise, and what it reads and writes has neighbours."""
        if self.elements <= 1 or len(self.others) > 1:
            return False
        if self.at is not None and self.steps[self.at].op not in HEADS:
            return False
        tail, stored = ([self.steps[i] for i in of] for of in (self.tail, self._stored))
        head = [] if self.at is None else [self.steps[self.at]]
        in_memory = [*stored, *head, *(s for s in tail if s.op == "load" and self._is_large(s))]
        return (
            all(i != self.at for i in self._stored)
            and all(self._size(step.span) in (1, self.elements) for step in tail)
            and all(self._size(store.span) == self.elements for store in self.stores)
            and all(self._has_neighbours(step) for step in tail if step.op == "load")
            and len({ITEMSIZE[step.dtype] for step in in_memory}) == 1
        )

    @property
    def _stored(self) -> list[int]:
        return [store.step for store in self.stores]

    def _is_large(self, step: Step) -> bool:
        return self._size(step.span) != 1

    def update(self) -> Update:
        """Return the kernel in its parts."""
        steps: list[Step] = []
        if self.at is not None:
            steps.append(Step("load", (), "each", self.steps[self.at].dtype, HEAD))
        order = [*(() if self.at is None else (self.at,)), *self.tail]
        number = {i: place for place, i in enumerate(order)}
        states: dict[str, str] = {}
        for i in self.tail:
            step = self.steps[i]
            span: Span = "each" if self._is_large(step) else "one"
            buffer = step.buffer
            if buffer and span == "each":
                buffer = states.setdefault(buffer, str(len(states)))
            args = tuple(number[arg] for arg in step.args)
            steps.append(step._replace(args=args, span=span, buffer=buffer))
        stores = [
            Store(states.setdefault(s.buffer, str(len(states))), number[s.step], "each")
            for s in self.stores
        ]
        met = overlaps(self.program, states, self.kernel.body.written)
        shared = tuple((states[a], states[b], how) for a, b, how in met)
        tail, itemsize = Tail(Body(tuple(steps), tuple(stores)), shared), ITEMSIZE[steps[-1].dtype]
        return Update(tail, tuple(states), self._head(), self.elements, itemsize)

    def _head(self) -> Kernel | None:
        """Return the kernel that computes what the tail begins with."""
        if self.at is None:
            return None
        order = _needed(self.steps, [self.at])
        number = {i: place for place, i in enumerate(order)}
        steps = [
            self.steps[i]._replace(args=tuple(number[arg] for arg in self.steps[i].args))
            for i in order
        ]
        body = Body(tuple(steps), (Store(HEAD, number[self.at], self.span),))
        return replace(self.kernel, body=body)


def _needed(steps: Sequence[Step], of: Sequence[int], behind: int | None = None) -> list[int]:
    """Return the steps that some need, in order, and these themselves; only those behind one."""
    found: set[int] = set()
    todo = list(of)
    while todo:
        i = todo.pop()
        if i not in found and i != behind:
            found.add(i)
            todo.extend(steps[i].args)
    return sorted(found)
