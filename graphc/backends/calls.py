"""Calls that all backends share: exchanges, and the reference rules of ops."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from graphc.backends.backend import Call, Link, View
from graphc.ir.op import Array, Op
from graphc.kernels.program import Instr


def bind_exchange(program: str, instr: Instr, view: View, link: Link | None) -> Sequence[Call]:
    """Return the calls of an instruction that sends or receives; none without a link."""
    return () if link is None else link.calls(program, instr, [view(name) for name in instr.outs])


def bind_reference(instr: Instr, n: int, view: View) -> Call:
    """Return the call that runs an op's reference rule and copies its result."""
    assert instr.op is not None, "the instruction is of an op"
    ins, (out,) = [view(name) for name in instr.ins], map(view, instr.outs)
    return partial(_referred, instr.op.at(n), ins, out)


def _referred(op: Op, ins: Sequence[Array], out: Array) -> None:
    np.copyto(out, op.reference(ins))
