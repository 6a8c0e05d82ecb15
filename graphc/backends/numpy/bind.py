"""The binding of a program to memory: every instruction becomes a few prebound calls."""

from __future__ import annotations

from graphc.backends.backend import Call, Link, View
from graphc.backends.calls import bind_exchange, bind_reference
from graphc.backends.numpy.horizontal import horizontal
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
    known = horizontal(program)
    joined = known.bind(n, view, scratch, skip)
    for i, (instr, kernel) in enumerate(zip(program.instrs, known.kernels, strict=True)):
        if i == program.boundary:
            boundary = len(calls)
        if instr.kind in ("send", "receive"):
            calls.extend(bind_exchange(program.name, instr, view, link))
        elif i in joined:
            calls.extend(joined[i])
        elif kernel is not None and i not in skip:
            calls.extend(kernel.bind(n, view, scratch))
        elif i not in skip and instr.kind != "barrier":
            calls.append(bind_reference(instr, n, view))
    return calls, boundary if program.boundary < len(program.instrs) else len(calls)
