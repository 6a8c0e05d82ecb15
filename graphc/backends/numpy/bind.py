"""The binding of a program to memory: every instruction becomes a few prebound calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from graphc.backends.backend import Call, Link, View
from graphc.backends.numpy.horizontal import horizontal
from graphc.ir.op import Array, Op
from graphc.ir.plan import Instr, Program


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
    border = 0
    known = horizontal(program)
    joined = known.bind(n, view, scratch, skip)
    for i, (instr, kernel) in enumerate(zip(program.instrs, known.kernels, strict=True)):
        if i == program.border:
            border = len(calls)
        if instr.kind in ("send", "receive"):
            calls.extend(bind_exchange(program.name, instr, view, link))
        elif i in joined:
            calls.extend(joined[i])
        elif kernel is not None and i not in skip:
            calls.extend(kernel.bind(n, view, scratch))
        elif i not in skip and instr.kind != "barrier":
            calls.append(bind_reference(instr, n, view))
    return calls, border if program.border < len(program.instrs) else len(calls)


def bind_exchange(program: str, instr: Instr, view: View, link: Link | None) -> Sequence[Call]:
    """Return the calls of an instruction that sends or receives; none without a link."""
    return () if link is None else link.calls(program, instr, [view(name) for name in instr.outs])


def bind_reference(instr: Instr, n: int, view: View) -> Call:
    """Return the call of an instruction that runs an op's own rule and copies its result."""
    assert instr.op is not None, "the instruction is of an op"
    ins, (out,) = [view(name) for name in instr.ins], map(view, instr.outs)
    return partial(_referred, instr.op.at(n), ins, out)


def _referred(op: Op, ins: Sequence[Array], out: Array) -> None:
    np.copyto(out, op.reference(ins))
