"""The steps of a program, and what they touch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np

from graphc.backends.table import backend
from graphc.check.certificate.columns import Pair, column, pair
from graphc.check.certificate.tables import (
    COLUMN,
    COLUMNS,
    EACH,
    GEMM,
    KINDS,
    LEFT,
    LOOP,
    NONE,
    ONE,
    READ,
    RIGHT,
    ROW,
    ROWS,
    SPLITS,
    WHOLE,
    WINDOW,
    WRITE,
    Accesses,
    Steps,
)
from graphc.ir.plan import Instr, Program
from graphc.ir.tensor_type import ITEMSIZE
from graphc.kernels.body import Body
from graphc.kernels.kernel import Gemm, Kernel, Loop, space
from graphc.kernels.walk import Elsewhere

SPAN = {"each": EACH, "row": ROW, "column": COLUMN, "one": ONE}
DEPENDS = {EACH: 3, ROW: 1, COLUMN: 2, ONE: 0}
"""Bits for what a span depends on: the row (1) and the column (2)."""
BY_DEPENDENCE = {number: span for span, number in DEPENDS.items()}
Touched = tuple[int, int, int, int, int, int]
"""Use, span, whether in place, member, and reach of an access."""
AXIS = {"rows": ROWS, "columns": COLUMNS}


def steps_of(program: Program) -> Steps:
    """Return the table of a program's instructions."""
    numbers = np.array(list(map(_step, program.instrs)), np.int64).reshape(-1, 13)
    scratch = column(backend(program.backend).scratch(program))
    return Steps(
        [instr.node for instr in program.instrs],
        numbers[:, 0],
        numbers[:, 1],
        numbers[:, 2:4],
        numbers[:, 4:6],
        numbers[:, 6:8],
        numbers[:, 8],
        numbers[:, 9],
        numbers[:, 10],
        numbers[:, 11],
        numbers[:, 12],
        scratch,
    )


_PLAIN = {
    kind: (KINDS.index(kind), NONE, 1, 0, 1, 0, 1, 0, 0, NONE, 0, 0, 0)
    for kind in ("call", "send", "receive", "barrier")
}


def _step(instr: Instr) -> tuple[int, ...]:
    kernel = instr.body
    if kernel is None:
        return _PLAIN[instr.kind]
    split = SPLITS.index(kernel.split)
    if isinstance(kernel, Gemm):
        rows, columns = space(kernel)
        sizes = (*pair(rows), *pair(columns), *pair(kernel.k))
        item = ITEMSIZE[kernel.dtype]
        turned = kernel.trans_a + 2 * kernel.trans_b
        return GEMM, split, *sizes, turned, NONE, 0, item, 0
    sizes = (*pair(kernel.rows), *pair(kernel.columns), 1, 0)
    reduced, by_columns, copies = _traits(kernel)
    return LOOP, split, *sizes, 0, reduced, by_columns, 0, copies


def _images(kernel: Gemm) -> Pair:
    """Return the elements of the images under a window."""
    if kernel.window is None:
        return 0, 0
    fixed, per_row = pair(kernel.k if kernel.trans_a else kernel.m)
    of_one, places = kernel.window.pixels, kernel.window.count
    return fixed // places * of_one, per_row // places * of_one


def _reach(kernel: Kernel, at: object) -> Pair:
    """Return the most elements from a buffer's first to the last that a fetch meets."""
    assert isinstance(kernel, Loop), "a product fetches nothing"
    assert isinstance(at, Elsewhere), "the value of a fetch is where"
    inner, per_row = 1, 0
    outer = [size // prod(kernel.places) for size in pair(kernel.rows)]
    first = pair(at.walks[0].size) if at.given else tuple(outer)
    counts = (first, *map(pair, (*kernel.places, kernel.columns)))
    for (count, batch), walk in zip(counts, at.walks, strict=True):
        if batch:
            per_row = batch * walk.pitch
        else:
            last = ((count - 1) * walk.scale + walk.shift) // walk.apart
            inner += min(last, pair(walk.size)[0] - 1) * walk.pitch
    return max(inner - per_row, 0), per_row


def _traits(kernel: Loop) -> tuple[int, int, int]:
    """Return the reduction axis, whether columns come first, and whether the loop only copies."""
    steps = kernel.body.steps
    reduced = [AXIS[str(step.value)] for step in steps if step.op in ("sum", "max")]
    computes = any(s.span == "column" and s.op not in ("load", "index") for s in steps)
    by_columns = computes and not reduced and kernel.rows != 1
    copies = (
        kernel.turned is None
        and len(steps) == len(kernel.body.stores) == 1
        and steps[0].op == "load"
    )
    return (reduced[0] if reduced else NONE), int(by_columns), int(copies)


# ------------------------------------------------------------------ accesses


def accesses_of(instrs: Iterable[Instr], number: Mapping[str, int]) -> Accesses:
    """Return the table of what the instructions touch; `number` numbers the buffers."""
    step: list[int] = []
    buffer: list[str] = []
    rest: list[Touched] = []
    for i, instr in enumerate(instrs):
        before = len(buffer)
        if instr.body is not None:
            _of_kernel(instr.body, buffer, rest)
        else:
            _of_call(instr, buffer, rest)
        step.extend([i] * (len(buffer) - before))
    table = np.array(rest, np.int64).reshape(-1, 6)
    names = column([number[name] for name in buffer])
    use, span, in_place, member = table[:, :4].T
    return Accesses(column(step), names, use, span, in_place, member, table[:, 4:])


def _of_call(instr: Instr, buffer: list[str], rest: list[Touched]) -> None:
    in_place: tuple[int, ...] = ()
    if instr.kind in ("call", "send", "receive") and instr.op is not None:
        in_place = instr.op.inplace
    buffer += instr.ins
    buffer += instr.outs
    many = len(instr.outs) > 1  # the members of a bucket
    rest += [
        (READ, WHOLE, int(many or i in in_place), i if many else 0, 0, 0)
        for i in range(len(instr.ins))
    ]
    rest += [(WRITE, WHOLE, 0, i, 0, 0) for i in range(len(instr.outs))]


def _of_kernel(kernel: Kernel, buffer: list[str], rest: list[Touched]) -> None:
    if isinstance(kernel, Gemm):
        buffer += (kernel.a, kernel.b)
        left = LEFT if kernel.window is None else WINDOW
        left, right = (left, RIGHT) if kernel.stack is None else (WHOLE, WHOLE)
        rest += ((READ, left, 0, 0, *_images(kernel)), (READ, right, 0, 0, 0, 0))
    elif kernel.added is not None:
        buffer += (kernel.added.rows, kernel.added.indices)
        columns, (fixed, per_row) = pair(kernel.columns)[0], pair(kernel.added.count)
        rest += ((READ, WINDOW, 0, 0, fixed * columns, per_row * columns),)
        rest += ((READ, WINDOW, 0, 0, fixed, per_row),)
    body = kernel.body
    turned = isinstance(kernel, Loop) and kernel.turned is not None
    for name, span in dict.fromkeys((s.buffer, s.span) for s in body.steps if s.op == "load"):
        buffer.append(name)
        rest.append((READ, WHOLE if turned else SPAN[span], int(not turned), 0, 0, 0))
    for name, at in dict.fromkeys((s.buffer, s.value) for s in body.steps if s.op == "fetch"):
        buffer.append(name)
        rest.append((READ, WINDOW, 0, 0, *_reach(kernel, at)))
    for store in body.stores:
        buffer.append(store.buffer)
        rest.append((WRITE, _level(body, SPAN[store.span], store.step), 0, 0, 0, 0))


def _level(body: Body, span: int, step: int) -> int:
    """Return the span by which a value is stored.

    A value that depends on more than its place is stored where it is computed.
    """
    return BY_DEPENDENCE[DEPENDS[span] | DEPENDS[SPAN[body.steps[step].span]]]
