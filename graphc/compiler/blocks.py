"""Inference in blocks of rows: a batch whose memory outgrows the caches runs a few rows at a time.

    capacity 8, an arena of 38 MB    8 times capacity 1, an arena of 5 MB

The bits are the same, since rows that do not depend on each other have those of each row alone.
"""

from __future__ import annotations

from graphc.backends.backend import backend
from graphc.compiler.memory import place
from graphc.ir.rows import keeps_rows
from graphc.ir.tensor_type import N
from graphc.kernels.program import Program

ARENA = 4 * 2**20
"""The bytes of an arena that caches hold: a block has as many rows as fit, at least one."""
ROW = 2**20
"""The bytes that the arena grows by with each row, from which a block gains more than its calls
cost."""


def block_rows(program: Program) -> int:
    """Return the rows of a block of inference; the capacity if all rows are to run together."""
    whole, nbytes = program.capacity, program.arena.nbytes
    if nbytes <= max(ARENA, whole * ROW) or not _by_row(program):
        return whole
    fixed = place([storage.range_at(0) for storage in program.storages]).nbytes
    row = (nbytes - fixed) // whole
    # What does not depend on the batch is computed for each block.
    return whole if row <= ROW else min(whole, max(1, max(ARENA, fixed) // row))


def _by_row(program: Program) -> bool:
    """Return whether the bits of a row of the outputs depend on that row of the feeds alone."""
    graph = program.graph
    if not backend(program.backend).by_row or any(x.kind == "call" for x in program.instrs):
        return False  # the products of a reference rule are NumPy's
    public = [*program.feeds, *program.outputs.values()]
    if any(graph[name].type.shape[:1] != (N,) for name in public):
        return False
    return not graph.updates and all(
        keeps_rows(node.op, [graph[name].type for name in node.inputs], node.type) for node in graph
    )
