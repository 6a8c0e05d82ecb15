"""The native backend: LLVM makes machine code of a whole program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.backends.backend import Link, Memory, PeakWork
from graphc.backends.native.gemm_sizes import instr_scratch
from graphc.backends.native.target import available
from graphc.base.usable_cores import thread_count
from graphc.kernels.program import Program

if TYPE_CHECKING:
    from graphc.backends.native.bind import NativeProgram


class NativeBackend:
    """The backend that compiles programs for the machine that it runs on."""

    name = "native"
    compiles = True

    def missing(self) -> str | None:
        """Return why no code can be made here, or None."""
        return available()

    def threads(self, asked: int | None) -> int:
        """Return how many cores a plan may use, at most as many as asked for."""
        return thread_count(asked)

    def scratch(self, program: Program) -> Sequence[int]:
        """Return the bytes that a thread needs in each product."""
        return instr_scratch(program)

    def bind(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None = None
    ) -> NativeProgram:
        """Return the compiled code of a program on its memory."""
        from graphc.backends.native.bind import NativeProgram

        return NativeProgram(program, skip, memory, link)

    def peak_work(self) -> PeakWork:
        """Return a loop of independent multiply-adds."""
        from graphc.backends.native.peak import peak_work

        return peak_work()


BACKEND = NativeBackend()
