"""The keys of the cache: what names machine code without compiling it."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache

from graphc.backends.native.exact_text import exact
from graphc.backends.native.program_code import code_of
from graphc.backends.native.target import CODEGEN, Target
from graphc.backends.native.this_machine import facts
from graphc.kernels.program import Program

PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
WRITERS = (
    "backends/native",
    "backends/arithmetic.py",
    "backends/body.py",
    "backends/coefficients.py",
    "backends/layout.py",
    "backends/doubles.py",
    "backends/maths.py",
    "backends/softfloat.py",
    "kernels",
    "features/precision/bfloat16.py",
    "ir/tensor_type.py",
    "ir/expr.py",
    "ir/access.py",
    "ir/forms.py",
    "ir/step_graph.py",
)
"""The parts of the package that determine the text of programs, of threads and of feeds."""


def module_key(name: str) -> str | None:
    """Return a key of a module that is the same for all programs; None if there is none.

    A version of graphc has one text a target under each name.
    """
    writers = _writers()
    return None if writers is None else f"{name} {writers}"


def program_key(program: Program, skip: frozenset[int]) -> str | None:
    """Return a key whose equality means equal texts; None if `WRITERS` cannot be read."""
    writers = _writers()
    return None if writers is None else exact((writers, code_of(program), sorted(skip)))


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
    parts = (facts().compiler, str(CODEGEN), exact(target), text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
