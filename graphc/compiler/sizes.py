"""The bytes that an executor of a plan allocates: state, feeds, constants, scratch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from graphc.backends.backend import backend
from graphc.base.errors import OutOfMemoryError, counted
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import ALIGNMENT, TensorType, align
from graphc.kernels.program import Program

if TYPE_CHECKING:
    from graphc.compiler.plan import Plan


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


class MemorySizes:
    """The bytes of a plan by what they are for, and the text of them."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self.n = plan, plan.batch
        self._programs: Mapping[str, Program] = plan.programs

    @cached_property
    def arenas(self) -> dict[str, int]:
        """The bytes of each program's arena."""
        return {name: program.arena.nbytes for name, program in self._programs.items()}

    @cached_property
    def peaks(self) -> dict[str, int]:
        """The largest number of bytes live at once in each program."""
        return {name: program.arena.peak for name, program in self._programs.items()}

    @property
    def arena(self) -> int:
        """The bytes that an executor allocates for arenas: those of the largest program.

        A program whose threads take blocks of rows has an arena for each thread.
        """
        return block_bytes(arena_bytes(self._programs, self.n, self._plan.options.arena_threads))

    @property
    def scratch(self) -> int:
        """The bytes that kernels need besides buffers; they may depend on the machine."""
        return block_bytes(self._scratch.nbytes)

    @property
    def thread_scratch(self) -> int:
        """The bytes of the scratch of each thread."""
        return self._scratch.thread

    @property
    def threads(self) -> int:
        """The number of threads that there is scratch for."""
        return self._scratch.threads

    @cached_property
    def _scratch(self) -> ScratchSize:
        return scratch_size(self._programs, self._plan.options.threads)

    @property
    def feeds(self) -> int:
        """The bytes of the buffers that feeds are copied to."""
        return block_bytes(region_bytes(feed_types(self._programs), run_rows(self._programs)))

    @property
    def results(self) -> int:
        """The bytes that gather the outputs of inference in blocks of rows; 0 without blocks."""
        return block_bytes(region_bytes(result_types(self._programs, self.n), self.n))

    @property
    def constants(self) -> int:
        """The bytes of the constants of all programs."""
        return block_bytes(region_bytes(constant_types(self._programs), self.n))

    @property
    def gradients(self) -> int:
        """The bytes of the block in which `backward` leaves gradients; `step` does not use it."""
        grad = self._programs.get("grad")
        return block_bytes(grad.gradient_bytes) if grad is not None else 0

    @property
    def exchange(self) -> int:
        """The bytes of what is exchanged with other processes: none (a place)."""
        return 0

    @property
    def state(self) -> int:
        """The bytes of parameters, running statistics, optimizer slots, counters and seed."""
        return block_bytes(layout(self._plan.state_nodes)[1])

    @property
    def workspace(self) -> int:
        """The bytes that each executor allocates for itself before the first `backward`."""
        return self._for_a_run + self.exchange

    @property
    def _for_a_run(self) -> int:
        return self.arena + self.scratch + self.feeds + self.results + self.constants

    @property
    def total(self) -> int:
        """The sum of all bytes."""
        return self.workspace + self.gradients + self.state

    def check_machine(self, most: int) -> None:
        """Raise an error if the plan needs more bytes than there can be.

        Parameters
        ----------
        most
            The bytes that there can be.

        Raises
        ------
        OutOfMemoryError
            How many bytes it needs, and which batch would fit this process.
        """
        if self.total > most:
            raise OutOfMemoryError(
                f"there is not enough memory for this plan, which needs "
                f"{counted(self.total, 'byte')}; at most {counted(most, 'byte')} can be had",
                hint=self._fits_hint(most),
            )

    def _fits_hint(self, most: int) -> str:
        """Return what would fit in so many bytes, for a hint (a place)."""
        return "compile for fewer rows"

    def _more_lines(self) -> Iterable[str]:
        """Return lines for the end of the text (a place)."""
        return ()

    def __str__(self) -> str:
        rows = [
            ("state", self.state, "parameters, statistics, optimizer slots, counters"),
            ("feeds", self.feeds, "copies of the arrays fed"),
            ("constants", self.constants, ""),
            ("arena", self.arena, self._arenas_text()),
            ("gradients", self.gradients, "made by the first forward(train=True)"),
            ("total", self.total, ""),
        ]
        if self.exchange:
            rows.insert(5, ("exchange", self.exchange, "sums of shards, and of other ranks"))
        if self.scratch:
            each = f"{self.thread_scratch:,} a thread, {self.threads} here"
            rows.insert(4, ("scratch", self.scratch, each))
        if self.results:
            rows.insert(2, ("results", self.results, self._blocks_text()))
        if backend(self._plan.backend).compiles:
            rows[-1] = ("total", self.total, "without native code, made at the first run")
        lines = [f"memory of {self._plan.declared.name!r} at N = {self.n}, bytes"]
        lines += [f"  {name:<10} {size:>14,}  {what}".rstrip() for name, size, what in rows]
        return "\n".join([*lines, *self._more_lines()])

    def _blocks_text(self) -> str:
        rows = counted(self._programs["infer"].capacity, "row")
        return f"outputs of a batch, whose inference runs in blocks of {rows}"

    def _arenas_text(self) -> str:
        return ", ".join([self._arena_text(name) for name, size in self.arenas.items() if size])

    def _arena_text(self, name: str) -> str:
        count = arena_count(self._programs[name], self.n, self._plan.options.arena_threads)
        each = f" for each of {count} threads" if count > 1 else ""
        return f"{name} {self.arenas[name]:,} (peak {self.peaks[name]:,}){each}"
