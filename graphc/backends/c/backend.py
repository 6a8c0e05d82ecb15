"""The c backend: a program is printed as C99, compiled by the system's compiler, and called."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from graphc.backends.backend import (
    Call,
    Link,
    Memory,
    PeakWork,
    View,
    ZeroCopy,
    bind_exchange,
    bind_reference,
)
from graphc.backends.c.products import scratch_bytes
from graphc.backends.c.source import program_source
from graphc.backends.native.program import ARENA, SCRATCH, block_of, layout, table_index
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.kernels.kernel import Gemm
from graphc.kernels.program import Program


def compiler() -> str | None:
    """Return the path of the C compiler: $CC, or cc."""
    return shutil.which(os.environ.get("CC") or "cc")


FLAGS = ("-std=c99", "-O1", "-march=native", "-fPIC", "-shared")


def compiled(source: str) -> ctypes.CDLL:
    folder = Path(mkdtemp(prefix="graphc-c-"))
    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    (folder / f"{name}.c").write_text(source)
    command = [compiler() or "cc", *FLAGS, "-o", str(folder / f"{name}.so"), f"{name}.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / f"{name}.so"))


class CRunner:
    """The compiled code of a program, and the table of addresses that it runs on."""

    def __init__(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None
    ) -> None:
        self.program, self.layout, self._link = program, layout(program, skip), link
        self.library = compiled(program_source(program, skip))
        self.table = np.zeros(len(self.layout.blocks) + 1, np.uint64)
        self._kept: list[Array] = [memory.arena, memory.scratch]
        self.table[0] = memory.arena.ctypes.data
        self.table[1] = memory.scratch.ctypes.data
        names = {}
        for buffer in program.buffers.values():
            names.setdefault(block_of(buffer), buffer.name)
        for slot, block in enumerate(self.layout.blocks):
            if block not in (ARENA, SCRATCH):
                array = memory.view(program, names[block], program.capacity)
                self._kept.append(array)
                self.table[table_index(slot)] = array.ctypes.data

    @property
    def uninterrupted(self) -> bool:
        return all(segment.symbol is not None for segment in self.layout.segments)

    def calls(self, n: int, view: View) -> tuple[list[Call], int]:
        calls: list[Call] = []
        forward = None
        for segment in self.layout.segments:
            if forward is None and segment.start >= self.program.boundary:
                forward = len(calls)
            if segment.symbol is None:
                instr = self.program.instrs[segment.start]
                if instr.kind in ("send", "receive"):
                    calls.extend(bind_exchange(self.program.name, instr, view, self._link))
                else:
                    calls.append(bind_reference(instr, n, view))
                continue
            function = getattr(self.library, segment.symbol)
            calls.append(partial(self._call, function, n))
        return calls, len(calls) if forward is None else forward

    def _call(self, function: Callable[..., None], n: int) -> None:
        """Call a function of the library; a bound method keeps the memory of the table alive."""
        function(ctypes.c_void_p(self.table.ctypes.data), ctypes.c_ssize_t(n))

    def feed_in_place(self) -> None:
        """Do nothing: feeds are always copied."""

    def zero_copy(self, types: Mapping[str, TensorType]) -> tuple[ZeroCopy, tuple[str, ...]] | None:
        """Return None: feeds are always copied."""
        return None


class CBackend:
    """The backend that prints C99."""

    name = "c"
    compiles = True

    def missing(self) -> str | None:
        """Return why there is no compiler, or None."""
        return None if compiler() else "there is no C compiler: install one, or set CC"

    def threads(self, asked: int | None) -> int:
        """Return 1."""
        return 1

    def scratch(self, program: Program) -> Sequence[int]:
        """Return the bytes that each product packs factors into."""
        bodies, n = (instr.body for instr in program.instrs), program.capacity
        return [scratch_bytes(x, n) if isinstance(x, Gemm) else 0 for x in bodies]

    def bind(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None = None
    ) -> CRunner:
        """Return the compiled code of a program on its memory."""
        return CRunner(program, skip, memory, link)

    def peak_work(self) -> PeakWork:
        raise NotImplementedError


BACKEND = CBackend()
