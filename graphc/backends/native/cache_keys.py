"""The keys of the cache: what names machine code without compiling it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import fields
from functools import lru_cache
from operator import itemgetter

from graphc.backends.layout import kernels
from graphc.backends.native.panels import packed_factors
from graphc.backends.native.target import CODEGEN, Target
from graphc.backends.native.this_machine import facts
from graphc.kernels.program import Buffer, Program
from graphc.kernels.scan import ScanKernel

PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
WRITERS = (
    "backends/native",
    "backends/arithmetic.py",
    "backends/coefficients.py",
    "backends/layout.py",
    "backends/doubles.py",
    "backends/maths.py",
    "backends/softfloat.py",
    "kernels",
    "ir/bfloat16.py",
    "ir/tensor_type.py",
    "ir/expr.py",
    "ir/access.py",
    "ir/forms.py",
    "ir/step_graph.py",
)
"""The parts of the package that determine the text of programs, of threads and of feeds."""

# The text does not depend on live ranges.
_PLACE = itemgetter(*(i for i, x in enumerate(Buffer._fields) if x not in ("first", "last")))


def module_key(name: str) -> str | None:
    """Return a key of a module that is the same for all programs; None if there is none.

    A version of graphc has one text a target under each name.
    """
    writers = _writers()
    return None if writers is None else f"{name} {writers}"


def program_key(program: Program, bits: int, skip: frozenset[int]) -> str | None:
    """Return a key whose equality means equal texts; None if `WRITERS` cannot be read."""
    writers = _writers()
    if writers is None:
        return None
    packed = sorted(packed_factors(program, bits))
    return repr(
        (writers, bits, program.contract, program.capacity, _described(program, skip), packed)
    )


def _described(program: Program, skip: frozenset[int]) -> tuple[object, ...]:
    """Return all that the text of a program depends on, but for the target."""
    code = [
        (instr.kind, None if i in skip else instr.body, _of_scan(instr.scan))
        for i, instr in enumerate(program.instrs)
    ]
    names = {n: None for instr in kernels(program, skip) for n in (*instr.ins, *instr.outs)}
    buffers = [_PLACE(program.buffers[name]) for name in names]
    return program.boundary, code, buffers


def _of_scan(scan: ScanKernel | None) -> object:
    """Return the same of a loop: of its step's program, with its constants, and of its buffers."""
    if scan is None:
        return None
    program = scan.program
    constants = [program.graph[name].op for name in program.constants]
    own = [(f.name, getattr(scan, f.name)) for f in fields(scan) if f.name != "program"]
    return own, _described(program, frozenset()), constants, program.capacity


@lru_cache
def _writers() -> str | None:
    """Return a digest of the source of `WRITERS`, or None without it, as in an archive."""
    digest = hashlib.sha256()
    try:
        for part in WRITERS:
            for file in _files(part):
                # Without pathlib and buffers: this is a good part of a first call.
                with open(file, "rb", buffering=0) as opened:
                    source = opened.read()
                name = os.path.basename(file)
                digest.update(f"{part} {name} {len(source)}\n".encode() + source)
    except OSError:
        return None
    return digest.hexdigest()


def _files(part: str) -> list[str]:
    path = os.path.join(PACKAGE, part)
    if part.endswith(".py"):
        return [path]
    return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".py")]


def object_key(text: str, target: Target) -> str:
    """Return the name of an entry: a hash of all that its bytes depend on.

    They depend on graphc only by the text: a new version finds all objects of unchanged text.
    """
    parts = (facts().compiler, str(CODEGEN), target.triple, target.cpu, target.features, text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
