"""The binding of a program to memory: every instruction becomes a few prebound calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc.backends.numpy import KERNELS
from graphc.ir.op import Array, Op
from graphc.ir.plan import Instr, Program

Call = Callable[[], object]


class Link(Protocol):
    """A link that carries values to other shards."""

    def calls(self, program: str, instr: Instr, arrays: Sequence[Array]) -> tuple[Call, ...]:
        """Return the calls of an instruction that sends or receives these arrays."""

    def poke(self) -> None:
        """Advance the transfers that are under way."""


def bind(
    program: Program,
    n: int,
    view: Callable[[str], Array],
    skip: frozenset[int] = frozenset(),
    link: Link | None = None,
) -> tuple[list[Call], int]:
    """Return the calls of a run with `n` rows, and how many of them are the forward pass.

    `view` gives the array of a buffer; instructions in `skip` are left out.
    """
    calls: list[Call] = []
    border = 0
    for i, instr in enumerate(program.instrs):
        if i == program.border:
            border = len(calls)
        if instr.kind in ("send", "receive"):
            calls.extend(bind_exchange(program.name, instr, view, link))
        elif i not in skip:
            calls.extend(bind_instr(instr, n, view))
    return calls, border if program.border < len(program.instrs) else len(calls)


def bind_exchange(
    program: str, instr: Instr, view: Callable[[str], Array], link: Link | None
) -> Sequence[Call]:
    """Return the calls of an instruction that sends or receives; none without a link."""
    return () if link is None else link.calls(program, instr, [view(name) for name in instr.outs])


def bind_instr(instr: Instr, n: int, view: Callable[[str], Array]) -> Sequence[Call]:
    """Return the calls of one instruction."""
    ins = [view(name) for name in instr.ins]
    outs = [view(name) for name in instr.outs]
    if instr.kind == "copy":
        return (_copy(ins[0], outs[0]),)
    assert instr.op is not None
    op = instr.op.at(n)
    if instr.kind == "reference":
        return (_reference(op, ins, outs[0]),)
    scratch = [view(name) for name in instr.scratch]
    kernel = KERNELS[instr.kernel]
    if instr.members == 1:
        return kernel(op, ins, outs[0], scratch)
    rows, extra = _in_rows(ins, instr.members), _in_rows(scratch, instr.members)
    joined = [_join(row) for row in (*rows, *extra, outs)]
    whole = [array for array in joined if array is not None]
    if len(whole) == len(joined):
        return kernel(op, whole[: len(rows)], whole[-1], whole[len(rows) : -1])
    return [
        call
        for i, out in enumerate(outs)
        for call in kernel(op, [row[i] for row in rows], out, [row[i] for row in extra])
    ]


def _in_rows(arrays: Sequence[Array], members: int) -> list[Sequence[Array]]:
    """Return for each operand its arrays, one a member."""
    return [arrays[i : i + members] for i in range(0, len(arrays), members)]


def _copy(source: Array, out: Array) -> Call:
    return lambda: np.copyto(out, source)


def _reference(op: Op, ins: Sequence[Array], out: Array) -> Call:
    return lambda: np.copyto(out, op.reference(ins))


def _join(arrays: Sequence[Array]) -> Array | None:
    """Return a flat view of arrays that follow each other in memory, else None.

    A scalar that all share is returned itself.
    """
    first = arrays[0]
    if first.ndim == 0:
        same = all(_address(array) == _address(first) for array in arrays)
        return first if same else None
    end = _address(first)
    for array in arrays:
        if _address(array) != end or array.dtype != first.dtype:
            return None
        end += array.nbytes
    total = (end - _address(first)) // first.itemsize
    return as_strided(first.reshape(-1), (total,), (first.itemsize,))


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
