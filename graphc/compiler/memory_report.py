"""The exact memory that a plan needs, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.backends.backend import backend
from graphc.base.arguments import checked_whole
from graphc.base.door import higher
from graphc.base.errors import BudgetError, Operand, OutOfMemoryError, counted
from graphc.base.loc import Loc, caller_loc
from graphc.base.memory import most_bytes
from graphc.compiler.loop_memory import LoopLine, loop_lines, loops_text
from graphc.compiler.remat.fit import (
    at_batch,
    largest_batch,
    largest_batch_kept,
    least_total,
)
from graphc.compiler.remat.recomputation import Curve, curve
from graphc.compiler.sharding import exchange_bytes, workspaces
from graphc.compiler.sizes import (
    ScratchSize,
    ThreadMemory,
    arena_bytes,
    arena_count,
    block_bytes,
    constant_types,
    feed_types,
    layout,
    region_bytes,
    result_types,
    run_rows,
    scratch_size,
)
from graphc.kernels.program import Program

if TYPE_CHECKING:
    from graphc.compiler.plan import Plan


@dataclass(frozen=True, slots=True)
class BufferLine:
    """A buffer of an arena as the memory report lists it.

    Parameters
    ----------
    program
        The name of the program.
    name
        The name of the buffer: that of its node, if it has one.
    nbytes, formula
        Its bytes, and a formula of them in N.
    offset
        Where it starts in the arena, in bytes.
    first, last
        The epochs of its live range.
    loc
        The line of your code that declared it, if one did.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> y = net.output("y", gc.relu(net.input("x", (gc.N, 3)), name="y"))
    >>> [line.formula for line in gc.compile(net, batch=8).memory.buffers()]
    ['12*N']
    """

    program: str
    name: str
    nbytes: int
    formula: str
    offset: int
    first: int
    last: int
    loc: Loc | None


class MemoryReport:
    """The exact bytes of a plan.

    `feeds`, `results`, `constants`, `arena`, `scratch`, `exchange` and `gradients` belong to each
    executor, `state` may be shared; `total` is their sum, alignment included.  The gradient block
    is made by the first `forward(train=True)` or `update(gradients)`, all else when the executor
    is made.
    Not included are `backward` with cotangents, which is compiled when first asked for, and native
    code, whose size is unknown until the first run of a program compiles it.

    Parameters
    ----------
    plan
        The plan.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> y = net.output("y", gc.relu(net.input("x", (gc.N, 16))))
    >>> report = gc.compile(net, batch=8, backend="numpy").memory
    >>> report.arenas, report.at(2).arenas
    ({'infer': 512}, {'infer': 128})
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self.n = plan, plan.batch
        self._programs: Mapping[str, Program] = plan.programs

    def at(self, n: int) -> MemoryReport:
        """Return the report of the same plan for another batch.

        Parameters
        ----------
        n
            The largest number of rows of a run.

        Returns
        -------
        MemoryReport
            That of a plan which recomputes the same values.
        """
        return MemoryReport(at_batch(self._plan, checked_whole("memory.at: n", n)))

    def population(self, members: int) -> int:
        """Return the bytes of a population: states, an arena for each thread, and all else.

        Parameters
        ----------
        members
            The number of members.

        Returns
        -------
        int
            What `gc.Population(plan, members=members).nbytes` will be.
        """
        count = checked_whole("memory.population: members", members, 1)
        if self._plan.without_kept is not self._plan:
            return self._plan.without_kept.memory.population(count)
        sizes = ThreadMemory.of(self._programs, self._plan.options.arena_threads)
        own = count * layout(self._plan.state_nodes)[1], sizes.arenas, sizes.feeds
        rest = self.total - self.gradients - self.arena - self.feeds
        return rest + sum(map(block_bytes, own))

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
        """The bytes of the sums of a rank's shards, and of what it receives from other ranks."""
        more = workspaces(self._plan) - 1
        return exchange_bytes(self._plan) + more * self._for_a_run

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

    def buffers(self) -> Iterator[BufferLine]:
        """Yield every arena buffer of every program.

        Yields
        ------
        BufferLine
            Within a program in the order in which live ranges start.
        """
        for name, program in self._programs.items():
            rows = [b for b in program.buffers.values() if b.space == "arena"]
            for b in sorted(rows, key=lambda b: (b.first, b.name)):
                node = program.graph.nodes.get(b.name)
                yield BufferLine(
                    name,
                    b.name,
                    b.type.nbytes(program.capacity),
                    b.type.bytes_text(),
                    b.offset,
                    b.first,
                    b.last,
                    node.loc if node is not None else None,
                )

    def loops(self) -> Iterator[LoopLine]:
        """Yield every loop of every program, with what its steps keep.

        Yields
        ------
        LoopLine
            Within a program in order; a loop inside another follows that one.
        """
        for name, program in self._programs.items():
            yield from loop_lines(program, name)

    def check_budget(self, budget: int) -> None:
        """Raise an error if the plan needs more than a budget.

        Parameters
        ----------
        budget
            The most bytes.

        Raises
        ------
        BudgetError
            Which parts need how many bytes, and which batch would fit.
        """
        if self.total <= budget:
            return
        parts = {"state": self.state, "arena": self.arena, "scratch": self.scratch}
        parts |= {"feeds": self.feeds, "results": self.results, "gradients": self.gradients}
        lines = [Operand(part, f"{size:,}", "bytes", None) for part, size in parts.items() if size]
        least, hint = self._what_fits(budget)
        raise BudgetError(
            f"the plan needs {self.total:,} bytes, {self.total - budget:,} more than the budget "
            f"of {budget:,}",
            operands=[*lines, *least, *self._largest_owners()],
            loc=caller_loc(),
            hint=hint,
        )

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
            kept = largest_batch_kept(self._plan, min(most, most_bytes()))
            raise OutOfMemoryError(
                f"there is not enough memory for this plan, which needs "
                f"{counted(self.total, 'byte')}; at most {counted(most, 'byte')} can be had",
                hint=f"batch={kept} fits here" if kept else "not even batch=1 fits",
            )

    def _largest_owners(self) -> list[Operand]:
        """Return the three nodes that own the most bytes of the state or of the largest arena."""
        sizes: dict[str, int] = {}
        program = self._programs[max(self.arenas, key=lambda name: self.arenas[name])]
        for buffer in program.buffers.values():
            if buffer.space == "arena":
                sizes[buffer.name] = buffer.type.nbytes(program.capacity)
        for name, node in self._plan.state_nodes.items():
            sizes[name] = node.type.nbytes(1)
        nodes = {**self._plan.state_nodes, **program.graph.nodes}
        owners = sorted((name for name in sizes if name in nodes), key=lambda n: (-sizes[n], n))
        return [
            Operand("largest", name, f"{sizes[name]:,} bytes", nodes[name].described("").loc)
            for name in owners[:3]
        ]

    def _what_fits(self, budget: int) -> tuple[list[Operand], str]:
        """Return the least memory with recomputation, and a hint that says which batch fits."""
        kept = largest_batch_kept(self._plan, budget)
        least = least_total(self._plan)
        if least == self.total:
            hint = f"batch={kept} fits" if kept else "not even batch=1 fits: make the net smaller"
            return [], hint
        operand = Operand("least", f"{least:,}", "bytes, with recomputation", None)
        fits = largest_batch(self._plan, budget, least)
        if not fits:
            return [operand], "not even batch=1 fits: make the net smaller"
        more = f"batch={fits} fits with recomputation"
        return [operand], f"{more}; batch={kept} without" if kept else more

    def curve(self) -> Curve:
        """Return memory against FLOPs, from keeping all values to the most useful recomputation.

        Returns
        -------
        Curve
            The points; its text is a table, and its `plot` draws it.
        """
        return curve(self._plan)

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
        return "\n".join([*lines, *self._loops_text()])

    def _loops_text(self) -> Iterator[str]:
        """Yield the loops of the program with the largest arena, which the arena is made for."""
        name = max(self.arenas, key=lambda name: self.arenas[name])
        found = [line for line in self.loops() if line.program == name]
        return loops_text(found) if found else iter(())

    def _blocks_text(self) -> str:
        rows = counted(self._programs["infer"].capacity, "row")
        return f"outputs of a batch, whose inference runs in blocks of {rows}"

    def _arenas_text(self) -> str:
        return ", ".join([self._arena_text(name) for name, size in self.arenas.items() if size])

    def _arena_text(self, name: str) -> str:
        count = arena_count(self._programs[name], self.n, self._plan.options.arena_threads)
        each = f" for each of {count} threads" if count > 1 else ""
        return f"{name} {self.arenas[name]:,} (peak {self.peaks[name]:,}){each}"

    def table(self) -> str:
        """Return a line for each arena buffer: offset, bytes, formula, epochs, name, user's line.

        Returns
        -------
        str
            The table.  An epoch lasts from one barrier to the next.
        """
        lines = [f"{'program':<10} {'offset':>10} {'bytes':>10} {'formula':>10}  epochs    buffer"]
        for b in self.buffers():
            life = f"{b.first}..{b.last}"
            numbers = f"{b.program:<10} {b.offset:>10} {b.nbytes:>10} {b.formula:>10}"
            where = f"  {b.loc}" if b.loc else ""
            lines.append(f"{numbers}  {life:<9} {b.name}{where}")
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the arena's picture for a notebook, if there is an arena, and the bytes' text."""
        bundle = {"text/plain": str(self)}
        for step in islice(higher("MemoryReport.pictures")(self._programs), 1):
            bundle["image/svg+xml"] = step.svg
        return bundle

    def render(self, path: str | Path) -> Path:
        """Draw the arena, offsets over time.

        Each rectangle is a buffer, coloured by its purpose.  The peak is marked, with all buffers
        that are live there.

        Parameters
        ----------
        path
            A .svg file for the arena of a step, or a .html file for those of all programs.

        Returns
        -------
        Path
            The file that was written.

        Raises
        ------
        GraphError
            If the suffix is another one.

        Examples
        --------
        >>> net = gc.Net("net")
        >>> y = net.output("y", gc.relu(net.input("x", (gc.N, 3))))
        >>> gc.compile(net, batch=8).memory.render("arena.svg")  # doctest: +SKIP
        """
        drawn: Path = higher("MemoryReport.render")(self._programs, self._plan.declared.name, path)
        return drawn
