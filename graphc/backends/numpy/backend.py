"""The numpy backend: each kernel is a flat list of calls of NumPy with out=."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from graphc.backends.backend import (
    Backend,
    Call,
    Link,
    Memory,
    Part,
    PeakWork,
    Runner,
    View,
    bind_exchange,
    bind_reference,
)
from graphc.backends.numpy.planned import planned
from graphc.base.door import higher
from graphc.ir.op import Array
from graphc.kernels.program import Program


def bind(
    program: Program,
    n: int,
    view: View,
    scratch: Array,
    skip: frozenset[int] = frozenset(),
    link: Link | None = None,
) -> tuple[list[Call], int]:
    """Return the calls of a run with `n` rows, and how many of them are the forward pass.

    `view` gives the array of a buffer, `scratch` is memory for temporaries; instructions in `skip`
    are left out.
    """
    calls: list[Call] = []
    boundary = 0
    for i, part in enumerate(parts(program, n, view, scratch, skip, link)):
        if i == program.boundary:
            boundary = len(calls)
        calls.extend(part.calls)
    return calls, boundary if program.boundary < len(program.instrs) else len(calls)


def parts(
    program: Program,
    n: int,
    view: View,
    scratch: Array,
    skip: frozenset[int] = frozenset(),
    link: Link | None = None,
) -> Iterator[Part]:
    """Yield the calls of each instruction; updates that run as one loop end with the last one."""
    known = planned(program)
    joined = known.bind(n, view, scratch, skip)
    for i, (instr, kernel) in enumerate(zip(program.instrs, known.kernels, strict=True)):
        ends: tuple[int, ...] = (i,)
        calls: list[Call] = []
        if instr.inside is not None:
            if i not in skip:
                calls.append(higher("bind loop")(instr.inside, n, view, partial(_step, scratch)))
        elif instr.kind in ("send", "receive"):
            calls.extend(bind_exchange(program.name, instr, view, link))
        elif i in joined:
            calls.extend(joined[i])
            group = sorted(joined.keys() & {*known.joined(i)})
            ends = tuple(group) if i == group[-1] else ()
        elif kernel is not None and i not in skip:
            calls.extend(kernel.bind(n, view, scratch))
        elif i not in skip and instr.kind != "barrier":
            calls.append(bind_reference(instr, n, view))
        yield Part(calls, (i,), ends)


def _step(scratch: Array, program: Program, n: int, view: View) -> list[Call]:
    """Return the calls of a loop's step."""
    return bind(program, n, view, scratch)[0]


_MATRIX = 512
"""The rows and columns of the product by which the peak is measured."""


class NumpyBackend(Backend):
    """The backend that runs wherever graphc does; the threads of NumPy itself are not counted."""

    name = "numpy"
    compiles = False
    by_row = False

    def missing(self) -> str | None:
        """Return None: NumPy is always available."""
        return None

    def scratch(self, program: Program) -> Sequence[int]:
        """Return the bytes of the temporaries of each instruction."""
        return planned(program).scratch

    def bind(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None = None
    ) -> NumpyRunner:
        """Return the runner of a program on its memory."""
        return NumpyRunner(program, skip, memory, link)

    def peak_work(self) -> PeakWork:
        """Return a matrix product, with the threads that NumPy takes."""
        a = np.ones((_MATRIX, _MATRIX), np.float32)
        name, flops = "NumPy's matrix product", 2 * _MATRIX**3
        return PeakWork(name, flops, lambda: partial(np.matmul, a, a, out=np.empty_like(a)))


class NumpyRunner(Runner):
    """A program whose instructions are calls of NumPy."""

    uninterrupted = False

    def __init__(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None
    ) -> None:
        self._program, self._skip, self._memory, self._link = program, skip, memory, link

    def calls(self, n: int, view: View) -> tuple[list[Call], int]:
        """Return the calls of a run with `n` rows, and how many of them are the forward pass."""
        return bind(self._program, n, view, self._memory.scratch, self._skip, self._link)

    def parts(self, n: int, view: View, threads: int) -> list[Part]:
        """Return the same run in parts, one for each instruction."""
        return list(parts(self._program, n, view, self._memory.scratch, self._skip, self._link))


BACKEND = NumpyBackend()
