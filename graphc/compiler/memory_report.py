"""The report of a plan's memory: its sizes, what fits a budget, and its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from graphc.base.arguments import checked_whole
from graphc.base.door import higher
from graphc.base.errors import BudgetError, Operand
from graphc.base.loc import Loc, caller_loc
from graphc.base.memory import most_bytes
from graphc.compiler.loops import LoopLine, loop_lines, loops_text
from graphc.compiler.remat.fit import (
    at_batch,
    largest_batch,
    largest_batch_kept,
    least_total,
)
from graphc.compiler.remat.recomputation import Curve, curve
from graphc.compiler.sharding import exchange_bytes, workspaces
from graphc.compiler.sizes import MemorySizes, ThreadMemory, block_bytes, layout


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


class MemoryReport(MemorySizes):
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

    @property
    def exchange(self) -> int:
        """The bytes of the sums of a rank's shards, and of what it receives from other ranks."""
        more = workspaces(self._plan) - 1
        return exchange_bytes(self._plan) + more * self._for_a_run

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

    def _fits_hint(self, most: int) -> str:
        """Return the largest batch that fits in so many bytes, and in this process, as a hint."""
        kept = largest_batch_kept(self._plan, min(most, most_bytes()))
        return f"batch={kept} fits here" if kept else "not even batch=1 fits"

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

    def _more_lines(self) -> Iterator[str]:
        """Yield the loops of the program with the largest arena, which the arena is made for."""
        name = max(self.arenas, key=lambda name: self.arenas[name])
        found = [line for line in self.loops() if line.program == name]
        return loops_text(found) if found else iter(())

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
