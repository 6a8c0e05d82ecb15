"""The table of addresses that compiled code runs on: an entry for each block of memory."""

from __future__ import annotations

import numpy as np

from graphc.backends.backend import Memory
from graphc.backends.layout import ARENA, SCRATCH, Block, Layout, block_of, table_index
from graphc.ir.op import Array
from graphc.kernels.program import Program


def address_table(program: Program, parts: Layout, memory: Memory) -> tuple[Array, list[Array]]:
    """Return the table of the addresses of all blocks, and the arrays that they are of.

    A table has bare addresses: who keeps it keeps the arrays.  Entry 2 is left 0.
    """
    names: dict[Block, str] = {}
    for buffer in program.buffers.values():
        names.setdefault(block_of(buffer), buffer.name)
    own = {ARENA: memory.arena, SCRATCH: memory.scratch}
    others = [block for block in parts.blocks if block not in own]
    views = (memory.view(program, names[block], program.capacity) for block in others)
    arrays = [*own.values(), *views]
    table = np.zeros(len(arrays) + 1, np.uint64)
    for slot, array in enumerate(arrays):
        table[table_index(slot)] = array.ctypes.data
    return table, arrays
