"""The key of a program's code: all that its text depends on, and cheaper to write than the text."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from graphc.backends.native.segments import kernels
from graphc.ir.plan import Program

WRITERS = ("backends/native", "kernels", "ir/tensor_type.py", "ir/plan.py", "compiler/memory.py")
"""The parts of the package that decide the text of a program."""


def recipe(program: Program, bits: int, skip: frozenset[int]) -> str | None:
    """Return a key: equal keys mean equal texts; None if the writers' source cannot be read."""
    writers = _writers()
    if writers is None:
        return None
    code = [
        (instr.kind, None if i in skip else instr.body) for i, instr in enumerate(program.instrs)
    ]
    names = {n: None for instr in kernels(program, skip) for n in (*instr.ins, *instr.outs)}
    buffers = [program.buffers[name]._replace(first=0, last=0) for name in names]
    return repr((writers, bits, program.border, code, buffers))


@lru_cache
def _writers() -> str | None:
    """Return a digest of the writers' own source, or None without it, as in an archive."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    try:
        for part in WRITERS:
            path = root / part
            for file in sorted(path.glob("*.py")) if path.is_dir() else (path,):
                source = file.read_bytes()
                digest.update(f"{part} {file.name} {len(source)}\n".encode() + source)
    except OSError:
        return None
    return digest.hexdigest()
