"""The bytes that an executor of a plan allocates: state, feeds, constants, scratch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from graphc.backends.backend import backend
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import ALIGNMENT, TensorType, align
from graphc.kernels.program import Program


def block_bytes(nbytes: int) -> int:
    """Return the bytes that are allocated for a block, its alignment included."""
    return nbytes + ALIGNMENT if nbytes else 0


def state_nodes(graphs: Iterable[Graph]) -> dict[str, Node]:
    """Return the parameters and states that the graphs read or write, in layout order."""
    found: dict[str, Node] = {}
    for graph in graphs:
        for node in graph:
            if node.op.persistent:
                found.setdefault(node.name, node)
    place = {name: i for i, name in enumerate(found)}

    def rank(name: str) -> tuple[int, str, str, int]:
        """Return the place of a state: parameters, then slots by part, then the others."""
        op = found[name].op
        if op.is_parameter:
            return 0, "", "", place[name]
        if op.role.kind == "slot":
            return 1, op.role.part, op.role.optimizer, place[op.role.of]
        return 2, "", "", place[name]

    return {name: found[name] for name in sorted(found, key=rank)}


def layout(nodes: Mapping[str, Node]) -> tuple[dict[str, int], int]:
    """Return the offset of each state in its block, and the size of the block."""
    return placed({name: node.type for name, node in nodes.items()}, 1)


def placed(types: Mapping[str, TensorType], n: int) -> tuple[dict[str, int], int]:
    """Return the offset of each named array in one block, for `n` rows, and the block's size."""
    offsets: dict[str, int] = {}
    offset = 0
    for name, type in types.items():
        offsets[name] = offset
        offset += align(type.nbytes(n))
    return offsets, offset


@dataclass(frozen=True, slots=True)
class ScratchSize:
    """The memory that kernels need besides buffers: `thread` bytes for each thread."""

    thread: int
    threads: int

    @property
    def nbytes(self) -> int:
        """The number of bytes of all threads."""
        return self.thread * self.threads


def scratch_size(programs: Mapping[str, Program], threads: int | None) -> ScratchSize:
    """Return the scratch of programs, which run one at a time."""
    made = {program.backend: backend(program.backend) for program in programs.values()}
    needs = [max(made[p.backend].scratch(p), default=0) for p in programs.values()]
    counts = [one.threads(threads) for one in made.values()]
    return ScratchSize(align(max(needs, default=0)), max(counts, default=1))


def arena_bytes(programs: Mapping[str, Program], batch: int, threads: int | None) -> int:
    """Return the bytes of the arenas of programs, which run one at a time."""
    found = programs.values()
    return max((p.arena.nbytes * arena_count(p, batch, threads) for p in found), default=0)


def arena_count(program: Program, batch: int, threads: int | None) -> int:
    """Return how many arenas a program has: one for each thread if each may take blocks of rows."""
    most = backend(program.backend).threads(threads)
    return most if batch // program.capacity >= most else 1


class ThreadMemory(NamedTuple):
    """The memory of threads that make whole runs, side by side."""

    threads: int
    arenas: int
    """The bytes of the arenas of all threads."""
    area: int
    """The bytes of the feeds of each thread."""

    @classmethod
    def of(cls, programs: Mapping[str, Program], threads: int | None) -> ThreadMemory:
        """Return that of programs, which run one at a time."""
        made = {program.backend for program in programs.values()}
        most = max((backend(name).threads(threads) for name in made), default=1)
        arena = max((program.arena.nbytes for program in programs.values()), default=0)
        return cls(most, most * arena, region_bytes(feed_types(programs), run_rows(programs)))

    @property
    def feeds(self) -> int:
        """The bytes of the feeds of all threads."""
        return self.threads * self.area


def feed_types(programs: Mapping[str, Program]) -> dict[str, TensorType]:
    """Return the types of the inputs of all programs, without gradients given to the update."""
    found: dict[str, TensorType] = {}
    for program in programs.values():
        given = program.fed_gradients
        found.update({name: type for name, type in program.feeds.items() if name not in given})
    return found


def run_rows(programs: Mapping[str, Program]) -> int:
    """Return the most rows that one of the programs takes at once; a block is not a whole batch."""
    return max((program.capacity for program in programs.values()), default=1)


def result_types(programs: Mapping[str, Program], batch: int) -> dict[str, TensorType]:
    """Return the types of the outputs of inference if it runs a batch in blocks, else none."""
    found = programs.get("infer")
    if found is None or found.capacity >= batch:
        return {}
    return {name: found.buffers[value].type for name, value in found.outputs.items()}


def constant_types(programs: Mapping[str, Program]) -> dict[str, TensorType]:
    """Return the types of the constants of all programs; each program has its own."""
    found: dict[str, TensorType] = {}
    for program in programs.values():
        named = program.constants.items()
        found.update({f"{program.name}:{name}": buffer.type for name, buffer in named})
    return found


def region_bytes(types: Mapping[str, TensorType], n: int) -> int:
    """Return the bytes of named arrays in one block, for a batch of `n` rows."""
    return placed(types, n)[1]
