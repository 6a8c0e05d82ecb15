"""The exact bytes of a plan, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from graphc.backends.backend import backend
from graphc.base.errors import OutOfMemoryError, counted
from graphc.compiler.sizes import (
    ScratchSize,
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
                hint=self.what_fits(most),
            )

    def what_fits(self, most: int) -> str:
        """Return what would fit in so many bytes, for a hint (a place)."""
        return "compile for fewer rows"

    def more_lines(self) -> Iterable[str]:
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
        return "\n".join([*lines, *self.more_lines()])

    def _blocks_text(self) -> str:
        rows = counted(self._programs["infer"].capacity, "row")
        return f"outputs of a batch, whose inference runs in blocks of {rows}"

    def _arenas_text(self) -> str:
        return ", ".join([self._arena_text(name) for name, size in self.arenas.items() if size])

    def _arena_text(self, name: str) -> str:
        count = arena_count(self._programs[name], self.n, self._plan.options.arena_threads)
        each = f" for each of {count} threads" if count > 1 else ""
        return f"{name} {self.arenas[name]:,} (peak {self.peaks[name]:,}){each}"
