"""The c backend: a program is printed as C99, compiled by the system's compiler, and called."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from graphc.backends.backend import Backend, Call, Link, Memory, Part, PeakWork
from graphc.backends.c.source import program_source
from graphc.backends.compiled import CompiledProgram
from graphc.backends.layout import Segment
from graphc.base.errors import GraphError
from graphc.kernels.program import Program

FLAGS = ("-std=c99", "-O2", "-march=native", "-fno-math-errno", "-fPIC", "-shared")


def compiler() -> str | None:
    """Return the path of the C compiler: $CC, or cc."""
    return shutil.which(os.environ.get("CC") or "cc")


@lru_cache(maxsize=64)
def compiled(source: str) -> ctypes.CDLL:
    """Return the library of a C file; raise GraphError with what the compiler says of it."""
    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    with TemporaryDirectory(prefix="graphc-c-") as folder:
        (Path(folder) / f"{name}.c").write_text(source, encoding="utf-8")
        command = [compiler() or "cc", *FLAGS, "-o", f"{name}.so", f"{name}.c"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise GraphError(f"{' '.join(command)} failed: {done.stderr.strip()[:2000]}")
        return ctypes.CDLL(str(Path(folder) / f"{name}.so"))  # the open file outlives its name


class CRunner(CompiledProgram):
    """A program whose functions are in a library."""

    backend = "c"

    def __init__(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None
    ) -> None:
        super().__init__(program, skip, memory, link)
        self.library = compiled(program_source(program, self.layout))

    def _calls_of(self, segment: Segment, symbol: str, n: int) -> list[Call]:
        return [self._code(symbol, n)]

    def _parts_of(self, segment: Segment, symbol: str, n: int, threads: int) -> list[Part]:
        return [Part([self._code(f"kernel{i}", n)], (i,), (i,)) for i in segment.numbers]

    def _code(self, symbol: str, n: int) -> Call:
        return partial(self._call, getattr(self.library, symbol), n)

    def _call(self, function: Callable[..., None], n: int) -> None:
        """Call a function of the library; a bound method keeps the memory of the table alive."""
        function(ctypes.c_void_p(self.table.ctypes.data), ctypes.c_ssize_t(n))


PEAK = """\
#include <stddef.h>
void peak(float *sums, ptrdiff_t rounds)
{
    float x[256];
    for (int l = 0; l < 256; ++l) x[l] = sums[l];
    for (ptrdiff_t r = 0; r < rounds; ++r)
        for (int l = 0; l < 256; ++l) x[l] = x[l] * 0.5f + 1.0f;
    for (int l = 0; l < 256; ++l) sums[l] = x[l];
}
"""
ROUNDS = 20_000
"""The rounds of one call."""


class CBackend(Backend):
    """The backend that prints C99, to be compiled from its text in each process."""

    name = "c"
    compiles = True
    by_row = True

    def missing(self) -> str | None:
        """Return why there is no compiler, or None."""
        return None if compiler() else "there is no C compiler: install one, or set CC"

    def scratch(self, program: Program) -> Sequence[int]:
        """Return zeros: kernels have their blocks on the stack."""
        return [0] * len(program.instrs)

    def bind(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None = None
    ) -> CRunner:
        """Return the compiled code of a program on its memory."""
        return CRunner(program, skip, memory, link)

    def peak_work(self) -> PeakWork:
        """Return a loop of independent multiply-adds as the compiler makes it."""
        run = compiled(PEAK).peak

        def make() -> Call:
            sums = np.zeros(256, np.float32)
            return lambda: run(ctypes.c_void_p(sums.ctypes.data), ctypes.c_ssize_t(ROUNDS))

        return PeakWork("multiply-adds in C", 2 * 256 * ROUNDS, make)


BACKEND = CBackend()
