"""From a plan to its certificate: what each step touches, and where all that lies.

Nothing is decided here: names become numbers, and the kernels' own words become spans.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from graphc.certificate.tables import (
    COLUMN,
    COLUMNS,
    EACH,
    KINDS,
    LEFT,
    NONE,
    ONE,
    READ,
    RIGHT,
    ROW,
    ROWS,
    SCRATCH,
    SPACES,
    SPLITS,
    WHOLE,
    WRITE,
    Accesses,
    Blocks,
    Buffers,
    Certificate,
    Ints,
    MemoryClaims,
    ProgramTables,
    Results,
    Slots,
    Steps,
    Updates,
)
from graphc.kernels.body import Body
from graphc.kernels.kernel import Gemm, Kernel, Loop
from graphc.plan import Buffer, Instr, Plan, Program
from graphc.tensor_type import ITEMSIZE, Batch, Dim, TensorType, count

Pair = tuple[int, int]

SPAN = {"each": EACH, "row": ROW, "column": COLUMN, "one": ONE}
DEPENDS = {EACH: 3, ROW: 1, COLUMN: 2, ONE: 0}
"""On the row (1) and on the column (2)."""
BY_DEPENDENCE = {number: span for span, number in DEPENDS.items()}
AXIS = {"rows": ROWS, "columns": COLUMNS}


def certify(plan: Plan) -> Certificate:
    """The certificate of all programs of a plan."""
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
    """The tables of one program."""
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
        _steps(program),
        _accesses(program.instrs, number),
        _results(program.outputs, number),
        _results(program.gradients, number),
        Updates(
            list(updates),
            _column([block_of.get(("state", name), -1) for name in updates]),
            _column([number[value] for value in updates.values()]),
        ),
    )


def _results(named: Mapping[str, str], number: Mapping[str, int]) -> Results:
    return Results(list(named), _column([number[buffer] for buffer in named.values()]))


# ------------------------------------------------------------------ memory


def _blocks(program: Program) -> tuple[Blocks, dict[tuple[str, str], int]]:
    """The arena, the gradients, and what every state, feed and constant lies in."""
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
    return Blocks(names, _column(space), _pairs(size)), found


def _owner(program: Program, buffer: Buffer) -> TensorType:
    """The type that the memory of a state, feed or constant was declared with."""
    if buffer.space == "state":
        return program.graph[buffer.key].type
    found = program.buffers.get(buffer.key)
    return buffer.type if found is None else found.type


def _bytes(type: TensorType) -> Pair:
    fixed, per_row = _pair(count(type.shape))
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
        _column([offsets[storage.key] for storage in storages]),
        _pairs(sizes),
        _column([storage.first for storage in storages]),
        _column([storage.last for storage in storages]),
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
        """Rows, columns and bytes of an element; types are shared objects."""
        found = known.get(id(type))
        if found is None:
            rows, columns = _matrix(type)
            found = known[id(type)] = (*_pair(rows), *_pair(columns), ITEMSIZE[type.dtype])
        return found

    shapes = np.array([matrix(b.type) for b in lines], np.int64).reshape(-1, 5)
    root = np.arange(len(lines))
    for name, owner in aliases.items():
        if name in number:
            root[number[name]] = number[owner]
    return Buffers(
        list(number),
        _column([block_of[b.space, b.key] for b in lines]),
        _column([b.offset for b in lines]),
        shapes[:, 0:2],
        shapes[:, 2:4],
        shapes[:, 4],
        root,
        _column([b.shift for b in lines]),
        _column([b.pitch for b in lines]),
        _column([b.first for b in lines]),
        _column([b.last for b in lines]),
        _column([slot_of[b.key] if b.space == "arena" else -1 for b in lines]),
    )


def _matrix(type: TensorType) -> tuple[Dim, Dim]:
    """A value as a matrix: its first dimension by all others; a vector is one row."""
    shape = type.shape
    if len(shape) < 2:
        return 1, count(shape)
    return shape[0], count(shape[1:])


# ------------------------------------------------------------------ steps


def _steps(program: Program) -> Steps:
    numbers = np.array(list(map(_step, program.instrs)), np.int64).reshape(-1, 14)
    scratch = _scratch_needs(program)
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
    kind: (KINDS.index(kind), NONE, 1, 0, 1, 0, 1, 0, 0, NONE, 0, 0, int(kind == "copy"), 0)
    for kind in ("call", "reference", "copy", "barrier")
}


def _step(instr: Instr) -> tuple[int, ...]:
    kernel = instr.body
    if kernel is None:
        return _PLAIN[instr.kind]
    split = SPLITS.index(kernel.split)
    if isinstance(kernel, Gemm):
        sizes = (*_pair(kernel.m), *_pair(kernel.n), *_pair(kernel.k))
        item = ITEMSIZE[kernel.dtype]
        return (
            KINDS.index("gemm"),
            split,
            *sizes,
            kernel.trans_a + 2 * kernel.trans_b,
            NONE,
            0,
            item,
            0,
            0,
        )
    sizes = (*_pair(kernel.rows), *_pair(kernel.columns), 1, 0)
    reduced, by_columns, copies = _traits(kernel)
    return (KINDS.index("loop"), split, *sizes, 0, reduced, by_columns, 0, copies, 0)


def _traits(kernel: Loop) -> tuple[int, int, int]:
    """The axis summed along; whether columns come first; whether it is but a copy."""
    steps = kernel.body.steps
    reduced = [AXIS[str(step.value)] for step in steps if step.op in ("sum", "max")]
    computes = any(s.span == "column" and s.op not in ("load", "index") for s in steps)
    by_columns = computes and not reduced and kernel.rows != 1
    copies = len(steps) == len(kernel.body.stores) == 1 and steps[0].op == "load"
    return (reduced[0] if reduced else NONE), int(by_columns), int(copies)


def _scratch_needs(program: Program) -> Ints:
    """The bytes of a thread's scratch that each product needs on this machine."""
    needs = np.zeros(len(program.instrs), np.int64)
    if program.backend != "native":
        return needs
    from graphc.backends.native.scratch import kernel_scratch
    from graphc.backends.native.target import host

    bits, known = host().bits, dict[tuple[object, ...], int]()
    for i, instr in enumerate(program.instrs):
        kernel = instr.body
        if isinstance(kernel, Gemm):
            key = kernel.m, kernel.n, kernel.k, kernel.trans_a, kernel.dtype
            if key not in known:
                known[key] = kernel_scratch(kernel, bits, program.capacity)
            needs[i] = known[key]
    return needs


# ------------------------------------------------------------------ accesses


def _accesses(instrs: Iterable[Instr], number: Mapping[str, int]) -> Accesses:
    step: list[int] = []
    buffer: list[str] = []
    rest: list[tuple[int, int, int, int]] = []
    for i, instr in enumerate(instrs):
        before = len(buffer)
        if instr.body is not None:
            _of_kernel(instr.body, buffer, rest)
        else:
            _of_call(instr, buffer, rest)
        step.extend([i] * (len(buffer) - before))
    table = np.array(rest, np.int64).reshape(-1, 4)
    names = _column([number[name] for name in buffer])
    return Accesses(_column(step), names, table[:, 0], table[:, 1], table[:, 2], table[:, 3])


def _of_call(instr: Instr, buffer: list[str], rest: list[tuple[int, int, int, int]]) -> None:
    in_place: tuple[int, ...] = ()
    if instr.kind == "call" and instr.op is not None:
        in_place = instr.op.inplace
    members = instr.members
    buffer += instr.ins
    buffer += instr.scratch
    buffer += instr.outs
    if members == 1:
        rest += [(READ, WHOLE, int(i in in_place), 0) for i in range(len(instr.ins))]
    else:
        rest += [
            (READ, WHOLE, int(i // members in in_place), i % members) for i in range(len(instr.ins))
        ]
    rest += [(SCRATCH, WHOLE, 0, i % members) for i in range(len(instr.scratch))]
    rest += [(WRITE, WHOLE, 0, i % members) for i in range(len(instr.outs))]


def _of_kernel(kernel: Kernel, buffer: list[str], rest: list[tuple[int, int, int, int]]) -> None:
    if isinstance(kernel, Gemm):
        buffer += (kernel.a, kernel.b)
        rest += ((READ, LEFT, 0, 0), (READ, RIGHT, 0, 0))
    body = kernel.body
    for name, span in dict.fromkeys((s.buffer, s.span) for s in body.steps if s.op == "load"):
        buffer.append(name)
        rest.append((READ, SPAN[span], 1, 0))
    for store in body.stores:
        buffer.append(store.buffer)
        rest.append((WRITE, _level(body, SPAN[store.span], store.step), 0, 0))


def _level(body: Body, span: int, step: int) -> int:
    """A value that depends on more than its place is stored where it is computed."""
    return BY_DEPENDENCE[DEPENDS[span] | DEPENDS[SPAN[body.steps[step].span]]]


def _pair(dim: Dim) -> Pair:
    return (0, dim.factor) if isinstance(dim, Batch) else (dim, 0)


def _column(numbers: Sequence[int]) -> Ints:
    return np.array(numbers, np.int64)


def _pairs(numbers: Sequence[Pair]) -> Ints:
    return np.array(numbers, np.int64).reshape(-1, 2)
