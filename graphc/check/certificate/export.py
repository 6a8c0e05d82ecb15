"""Makes the certificate of a plan: the buffers that each step touches, and their places.

It copies what the plan says: names become numbers, and broadcast kinds become access patterns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from graphc.backends.backend import backend
from graphc.backends.interface import Interface
from graphc.check import certificate as tables
from graphc.check.certificate import Axis, Certificate, Ints, Kind, Pattern, Space, Use
from graphc.check.certificate.columns import column
from graphc.check.certificate.loops import loop_tables
from graphc.compiler.plan import Plan
from graphc.compiler.sharding import workspaces
from graphc.compiler.sizes import (
    ThreadMemory,
    block_bytes,
    feed_types,
    layout,
    placed,
    run_rows,
)
from graphc.ir.access import AccessMap
from graphc.ir.expr import Body
from graphc.ir.tensor_type import ALIGNMENT, ITEMSIZE, Batch, Dim, TensorType, align, count
from graphc.kernels.kernel import Chain, Gemm, Kernel, Loop, Permutation
from graphc.kernels.program import Buffer, Instr, Program

Size = tuple[int, int, int]
"""A size (a, b, c) that means a + b*N + c*N*N."""
SIDE_BY_SIDE = "infer", "step"
"""The programs that threads run for whole members of a population."""


def size(dim: Dim) -> Size:
    """Return a dimension a + b*N + c*N*N as the size (a, b, c)."""
    if not isinstance(dim, Batch):
        return dim, 0, 0
    return (0, dim.factor, 0) if dim.power == 1 else (0, 0, dim.factor)


def sizes(numbers: Sequence[Size]) -> Ints:
    """Return sizes as rows of three numbers."""
    return np.array(numbers, np.int64).reshape(-1, 3)


def certify(plan: Plan) -> Certificate:
    """Return the certificate of all programs of a plan."""
    memory, states = plan.memory, plan.state_nodes
    offsets, _ = layout(states)
    claims = tables.MemoryClaims(
        memory.state,
        memory.feeds,
        memory.results,
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
        _members(plan) if plan.without_kept is plan else None,
    )


def _members(plan: Plan) -> tables.MemberClaims:
    """Return the memory of populations of a plan."""
    programs, memory, rows = plan.programs, plan.memory, run_rows(plan.programs)
    size = ThreadMemory.of(programs, plan.options.arena_threads)
    types = feed_types(programs)
    offsets, area = placed(types, rows)
    state = layout(plan.state_nodes)[1]
    return tables.MemberClaims(
        size.threads,
        state,
        block_bytes(size.arenas),
        {name: programs[name].arena.nbytes for name in SIDE_BY_SIDE if name in programs},
        block_bytes(size.feeds),
        area,
        {name: (offsets[name], type.nbytes(rows)) for name, type in types.items()},
        memory.population(1) - state,
    )


def certify_model(model: Interface) -> Certificate:
    """Return the certificate of an exported model, whose memory is that of one executor."""
    programs = [entry.program for entry in model.entries]
    written = tuple(certify_program(program) for program in programs)
    arena = max(program.arena.nbytes for program in programs)
    gradients = max(program.gradient_bytes for program in programs)
    feeds = {a.declared: a.type.nbytes(model.batch) for e in model.entries for a in e.feeds}
    constants = [
        align(buffer.type.nbytes(model.batch))
        for program in programs
        for buffer in program.constants.values()
    ]
    held = model.state_bytes, sum(map(align, feeds.values())), sum(constants), arena, gradients
    state, fed, constant, shared, kept = (size + ALIGNMENT * (size > 0) for size in held)
    total = state + fed + constant + shared + kept
    claims = tables.MemoryClaims(state, fed, 0, constant, shared, 0, 0, 1, kept, 0, 1, 1, 1, total)
    states = {name: (model.offsets[name], array.nbytes) for name, array in model.state.items()}
    return Certificate(model.prefix, model.batch, programs[0].backend, claims, states, written)


def certify_program(program: Program) -> tables.ProgramTables:
    """Return the tables of one program."""
    number = {name: i for i, name in enumerate(program.buffers)}
    blocks, block_of = _blocks(program)
    slots, slot_of = _slots(program)
    lines = list(program.buffers.values())
    buffers = _buffers(lines, number, program.aliases, block_of, slot_of)
    updates = program.graph.updates
    return tables.ProgramTables(
        program.name,
        program.backend,
        program.capacity,
        program.boundary,
        program.arena.nbytes,
        program.arena.peak,
        blocks,
        slots,
        buffers,
        steps_of(program),
        accesses_of(program.instrs, number),
        _results(program.outputs, number),
        _results(program.gradients, number),
        tables.Updates(
            list(updates),
            column([block_of.get(("state", name), -1) for name in updates]),
            column([number[value] for value in updates.values()]),
        ),
        tuple(loop_tables(program, number, certify_program)),
    )


def _results(named: Mapping[str, str], number: Mapping[str, int]) -> tables.Results:
    return tables.Results(list(named), column([number[buffer] for buffer in named.values()]))


# ------------------------------------------------------------------ memory


def _blocks(program: Program) -> tuple[tables.Blocks, dict[tuple[str, str], int]]:
    """Return the blocks (arena, gradients, each state, feed, constant) and their numbers."""
    names = ["arena", "gradients"]
    space = [Space.ARENA, Space.GRADIENT]
    held = [(program.arena.nbytes, 0, 0), (program.gradient_bytes, 0, 0)]
    found: dict[tuple[str, str], int] = {}
    for buffer in program.buffers.values():
        where = buffer.space, buffer.key
        if buffer.space in ("arena", "gradient"):
            found[where] = int(buffer.space == "gradient")
        elif where not in found:
            found[where] = len(names)
            names.append(buffer.key)
            space.append(Space.of(buffer.space))
            held.append(_bytes(_owner(program, buffer)))
    return tables.Blocks(names, column(space), sizes(held)), found


def _owner(program: Program, buffer: Buffer) -> TensorType:
    """Return the type that the memory of a state, feed or constant was declared with."""
    if buffer.space == "state":
        return program.graph[buffer.key].type
    found = program.buffers.get(buffer.key)
    return buffer.type if found is None else found.type


def _bytes(type: TensorType) -> Size:
    return size(count((*type.shape, ITEMSIZE[type.dtype])))


def _slots(program: Program) -> tuple[tables.Slots, dict[str, int]]:
    """Return the table of slots, and their numbers by key."""
    storages, offsets = program.storages, program.arena.offsets
    parts = [[_bytes(type) for type in storage.parts] for storage in storages]
    held = [
        (sum(a), sum(b), sum(c)) for a, b, c in (zip(NOTHING, *each, strict=True) for each in parts)
    ]
    slots = tables.Slots(
        [storage.key for storage in storages],
        column([offsets[storage.key] for storage in storages]),
        sizes(held),
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
) -> tables.Buffers:
    """Return the table of buffers: their memory, shape, owner of the bytes, and live range."""
    known = {id(b.type): b.type for b in lines}  # types are shared objects
    matrices = {key: _matrix(type) for key, type in known.items()}
    shapes = np.array([matrices[id(b.type)] for b in lines], np.int64).reshape(-1, 7)
    root = np.arange(len(lines))
    for name, owner in aliases.items():
        if name in number:
            root[number[name]] = number[owner]
    return tables.Buffers(
        list(number),
        column([block_of[b.space, b.key] for b in lines]),
        column([b.offset for b in lines]),
        shapes[:, 0:3],
        shapes[:, 3:6],
        shapes[:, 6],
        root,
        column([b.shift for b in lines]),
        column([b.pitch for b in lines]),
        column([b.first for b in lines]),
        column([b.last for b in lines]),
        column([slot_of[b.key] if b.space == "arena" else -1 for b in lines]),
    )


def _matrix(type: TensorType) -> tuple[int, ...]:
    """Return rows (the first dimension; 1 for a vector), columns and item size of a value."""
    shape = type.shape if len(type.shape) > 1 else (1, *type.shape)
    return *size(shape[0]), *size(count(shape[1:])), ITEMSIZE[type.dtype]


# ------------------------------------------------------------------ steps

DEPENDS = {Pattern.EACH: 3, Pattern.ROW: 1, Pattern.COLUMN: 2, Pattern.ONE: 0}
"""Bits for what a pattern depends on: the row (1) and the column (2)."""
PATTERN = {pattern.word: pattern for pattern in DEPENDS}
BY_DEPENDENCE = {number: pattern for pattern, number in DEPENDS.items()}
Touched = tuple[int, int, int, int, int, int]
"""Use, pattern, whether in place, and reach of an access."""
ONE, NOTHING = size(1), size(0)


def steps_of(program: Program) -> tables.Steps:
    """Return the table of a program's instructions."""
    numbers = np.array(list(map(_step, program.instrs)), np.int64).reshape(-1, 16)
    nodes = [instr.node for instr in program.instrs]
    scratch = column(backend(program.backend).scratch(program))
    rows, columns, depth = (numbers[:, i : i + 3] for i in (2, 5, 8))
    c = numbers.T
    return tables.Steps(
        nodes, c[0], c[1], rows, columns, depth, c[11], c[12], c[13], c[14], c[15], scratch
    )


def _step(instr: Instr) -> tuple[int, ...]:
    """Return the numbers of a row of the table of steps."""
    kernel = instr.body
    if kernel is None:
        kind = Kind.of(instr.kind) if instr.inside is None else Kind.SCAN
        return kind, Axis.NONE, *ONE, *ONE, *ONE, 0, Axis.NONE, 0, 0, 0
    split = Axis.of(kernel.partition)
    rows, columns = map(size, kernel.space)
    if isinstance(kernel, Gemm):
        dims = (*rows, *columns, *size(kernel.k))
        item = ITEMSIZE[kernel.dtype]
        transposed = kernel.trans_a + 2 * kernel.trans_b
        return Kind.GEMM, split, *dims, transposed, Axis.NONE, 0, item, 0
    dims = (*rows, *columns, *ONE)
    if isinstance(kernel, Chain):
        return Kind.LOOP, split, *dims, 0, Axis.NONE, 0, 0, 0
    reduced, by_columns, copies = _traits(kernel)
    return Kind.LOOP, split, *dims, 0, reduced, by_columns, 0, copies


def _reach(kernel: Kernel, at: object) -> Size:
    """Return the number of elements from the first of a buffer to the last that is fetched."""
    assert isinstance(kernel, Loop), "a product fetches nothing"
    assert isinstance(at, AccessMap), "a fetch has an access map"
    inner, per_row, per_pair = 1, 0, 0
    first = at.axes[0].size if at.given else kernel.first
    counts = map(size, (first, *kernel.places, kernel.columns))
    for (fixed, rows, pairs), axis_map in zip(counts, at.axes, strict=True):
        if rows or pairs:
            per_row, per_pair = rows * axis_map.pitch, pairs * axis_map.pitch
        else:
            last = ((fixed - 1) * axis_map.scale + axis_map.shift) // axis_map.divisor
            inner += min(last, size(axis_map.size)[0] - 1) * axis_map.pitch
    return max(inner - per_row - per_pair, 0), per_row, per_pair


def _traits(kernel: Loop) -> tuple[int, int, int]:
    """Return the reduction axis, whether columns come first, and whether the loop only copies."""
    steps = kernel.body.steps
    reduced = [Axis.of(str(step.value)) for step in steps if step.op in ("sum", "max")]
    computes = any(s.broadcast == "column" and s.op not in ("load", "index") for s in steps)
    by_columns = computes and not reduced and kernel.rows != 1
    copies = (
        not isinstance(kernel, Permutation)
        and len(steps) == len(kernel.body.stores) == 1
        and steps[0].op == "load"
    )
    return (reduced[0] if reduced else Axis.NONE), int(by_columns), int(copies)


# ------------------------------------------------------------------ accesses


def accesses_of(instrs: Iterable[Instr], number: Mapping[str, int]) -> tables.Accesses:
    """Return the table of what the instructions touch; `number` numbers the buffers."""
    rows = [
        (i, number[name], *touched)
        for i, instr in enumerate(instrs)
        for name, touched in (_of_call(instr) if instr.body is None else _of_kernel(instr.body))
    ]
    table = np.array(rows, np.int64).reshape(-1, 8)
    step, buffer, use, pattern, in_place = np.ascontiguousarray(table[:, :5].T)
    return tables.Accesses(step, buffer, use, pattern, in_place, table[:, 5:])


def _of_call(instr: Instr) -> Iterator[tuple[str, Touched]]:
    """Yield the buffers that an instruction without a kernel touches, and how."""
    exchanged = instr.kind in ("send", "receive")  # all of a bucket, in place
    in_place = instr.op.inplace if instr.op is not None else ()
    for i, name in enumerate(instr.ins):
        yield name, (Use.READ, Pattern.WHOLE, int(exchanged or i in in_place), *NOTHING)
    for name in instr.outs:
        yield name, (Use.WRITE, Pattern.WHOLE, 0, *NOTHING)


def _of_kernel(kernel: Kernel) -> Iterator[tuple[str, Touched]]:
    """Yield the buffers that a kernel touches, and how."""
    for buffer, part, elements in kernel.operands:
        yield buffer, (Use.READ, Pattern.of(part), 0, *size(elements))
    body = kernel.body
    if isinstance(kernel, Chain):
        yield from ((name, (Use.WRITE, Pattern.WHOLE, 0, *NOTHING)) for name in body.written)
        return
    permuted = isinstance(kernel, Permutation)
    for name, pattern in dict.fromkeys(
        (s.buffer, s.broadcast) for s in body.steps if s.op == "load"
    ):
        met = Pattern.WHOLE if permuted else PATTERN[pattern]
        yield name, (Use.READ, met, int(not permuted), *NOTHING)
    for name, at in dict.fromkeys((s.buffer, s.value) for s in body.steps if s.op == "fetch"):
        yield name, (Use.READ, Pattern.WINDOW, 0, *_reach(kernel, at))
    for store in body.stores:
        level = _level(body, PATTERN[store.broadcast], store.step)
        yield store.buffer, (Use.WRITE, level, 0, *NOTHING)


def _level(body: Body, pattern: Pattern, step: int) -> int:
    """Return the pattern of a store.

    A value that varies over more dimensions than its buffer is stored where it is computed.
    """
    return BY_DEPENDENCE[DEPENDS[pattern] | DEPENDS[PATTERN[body.steps[step].broadcast]]]
