"""From a plan to its certificate: what each step touches, and where all of it lies.

Nothing is decided here: names become numbers, and the kernels' own words become spans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.check.certificate.columns import Pair, column, pair, pairs
from graphc.check.certificate.steps import accesses_of, steps_of
from graphc.check.certificate.tables import (
    SPACES,
    Blocks,
    Buffers,
    Certificate,
    MemoryClaims,
    ProgramTables,
    Results,
    Slots,
    Updates,
)
from graphc.ir.plan import Buffer, Plan, Program
from graphc.ir.tensor_type import ITEMSIZE, Dim, TensorType, count


def certify(plan: Plan) -> Certificate:
    """Return the certificate of all programs of a plan."""
    from graphc.runtime.exchange import workspaces
    from graphc.runtime.state import layout

    memory, states = plan.memory, plan.state_nodes
    offsets, _ = layout(states)
    claims = MemoryClaims(
        memory.state,
        memory.feeds,
        memory.constants,
        memory.arena,
        memory.scratch,
        memory.thread_scratch,
        memory.threads,
        memory.gradients,
        memory.exchange,
        plan.lanes,
        plan.ranks,
        workspaces(plan),
        memory.total,
    )
    return Certificate(
        plan.declared.name,
        plan.batch,
        plan.backend,
        claims,
        {name: (offsets[name], node.type.nbytes(1)) for name, node in states.items()},
        tuple(certify_program(program) for program in plan.programs.values()),
    )


def certify_program(program: Program) -> ProgramTables:
    """Return the tables of one program."""
    number = {name: i for i, name in enumerate(program.buffers)}
    blocks, block_of = _blocks(program)
    slots, slot_of = _slots(program)
    lines = list(program.buffers.values())
    buffers = _buffers(lines, number, program.aliases, block_of, slot_of)
    updates = program.graph.updates
    return ProgramTables(
        program.name,
        program.backend,
        program.capacity,
        program.border,
        program.arena.nbytes,
        program.arena.peak,
        blocks,
        slots,
        buffers,
        steps_of(program),
        accesses_of(program.instrs, number),
        _results(program.outputs, number),
        _results(program.gradients, number),
        Updates(
            list(updates),
            column([block_of.get(("state", name), -1) for name in updates]),
            column([number[value] for value in updates.values()]),
        ),
    )


def _results(named: Mapping[str, str], number: Mapping[str, int]) -> Results:
    return Results(list(named), column([number[buffer] for buffer in named.values()]))


# ------------------------------------------------------------------ memory


def _blocks(program: Program) -> tuple[Blocks, dict[tuple[str, str], int]]:
    """Return the blocks (arena, gradients, each state, feed, constant) and their numbers."""
    names, space = ["arena", "gradients"], [SPACES.index("arena"), SPACES.index("gradient")]
    size = [(program.arena.nbytes, 0), (program.gradient_bytes, 0)]
    found: dict[tuple[str, str], int] = {}
    for buffer in program.buffers.values():
        where = buffer.space, buffer.key
        if buffer.space == "arena":
            found[where] = 0
        elif buffer.space == "gradient":
            found[where] = 1
        elif where not in found:
            found[where] = len(names)
            names.append(buffer.key)
            space.append(SPACES.index(buffer.space))
            size.append(_bytes(_owner(program, buffer)))
    return Blocks(names, column(space), pairs(size)), found


def _owner(program: Program, buffer: Buffer) -> TensorType:
    """Return the type that the memory of a state, feed or constant was declared with."""
    if buffer.space == "state":
        return program.graph[buffer.key].type
    found = program.buffers.get(buffer.key)
    return buffer.type if found is None else found.type


def _bytes(type: TensorType) -> Pair:
    fixed, per_row = pair(count(type.shape))
    return fixed * ITEMSIZE[type.dtype], per_row * ITEMSIZE[type.dtype]


def _slots(program: Program) -> tuple[Slots, dict[str, int]]:
    storages, offsets = program.storages, program.arena.offsets
    sizes = []
    for storage in storages:
        parts = [_bytes(type) for type in storage.parts]
        sizes.append(
            parts[0] if len(parts) == 1 else (sum(a for a, _ in parts), sum(b for _, b in parts))
        )
    slots = Slots(
        [storage.key for storage in storages],
        column([offsets[storage.key] for storage in storages]),
        pairs(sizes),
        column([storage.first for storage in storages]),
        column([storage.last for storage in storages]),
    )
    return slots, {storage.key: i for i, storage in enumerate(storages)}


def _buffers(
    lines: Sequence[Buffer],
    number: Mapping[str, int],
    aliases: Mapping[str, str],
    block_of: Mapping[tuple[str, str], int],
    slot_of: Mapping[str, int],
) -> Buffers:
    known: dict[int, tuple[int, int, int, int, int]] = {}

    def matrix(type: TensorType) -> tuple[int, int, int, int, int]:
        """Return rows, columns and bytes of an element; types are shared objects."""
        found = known.get(id(type))
        if found is None:
            rows, columns = _matrix(type)
            found = known[id(type)] = (*pair(rows), *pair(columns), ITEMSIZE[type.dtype])
        return found

    shapes = np.array([matrix(b.type) for b in lines], np.int64).reshape(-1, 5)
    root = np.arange(len(lines))
    for name, owner in aliases.items():
        if name in number:
            root[number[name]] = number[owner]
    return Buffers(
        list(number),
        column([block_of[b.space, b.key] for b in lines]),
        column([b.offset for b in lines]),
        shapes[:, 0:2],
        shapes[:, 2:4],
        shapes[:, 4],
        root,
        column([b.shift for b in lines]),
        column([b.pitch for b in lines]),
        column([b.first for b in lines]),
        column([b.last for b in lines]),
        column([slot_of[b.key] if b.space == "arena" else -1 for b in lines]),
    )


def _matrix(type: TensorType) -> tuple[Dim, Dim]:
    """Return a value's size as a matrix: its first dimension by all others; a vector is one row."""
    shape = type.shape
    if len(shape) < 2:
        return 1, count(shape)
    return shape[0], count(shape[1:])
