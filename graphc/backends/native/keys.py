"""The keys of the cache: what names machine code without compiling it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from graphc.backends.layout import kernels
from graphc.backends.native.facts import facts
from graphc.backends.native.target import CODEGEN, Target
from graphc.kernels.program import Program

WRITERS = (
    "backends/native",
    "backends/arithmetic.py",
    "backends/coefficients.py",
    "backends/layout.py",
    "backends/doubles.py",
    "backends/maths.py",
    "backends/softfloat.py",
    "kernels",
    "ir/tensor_type.py",
    "ir/expr.py",
    "ir/access.py",
    "ir/forms.py",
)
"""The parts of the package that determine the text of a program."""


def program_key(program: Program, bits: int, skip: frozenset[int]) -> str | None:
    """Return a key whose equality means equal texts; None if `WRITERS` cannot be read."""
    writers = _writers()
    if writers is None:
        return None
    code = [
        (instr.kind, None if i in skip else instr.body) for i, instr in enumerate(program.instrs)
    ]
    names = {n: None for instr in kernels(program, skip) for n in (*instr.ins, *instr.outs)}
    # The text does not depend on live ranges.
    buffers = [program.buffers[name]._replace(first=0, last=0) for name in names]
    return repr((writers, bits, program.contract, program.boundary, code, buffers))


@lru_cache
def _writers() -> str | None:
    """Return a digest of the source of `WRITERS`, or None without it, as in an archive."""
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


def object_key(text: str, target: Target) -> str:
    """Return the name of an entry: a hash of all that its bytes depend on.

    They depend on graphc only by the text: a new version finds all objects of unchanged text.
    """
    parts = (facts().compiler, str(CODEGEN), target.triple, target.cpu, target.features, text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
