"""The provenance of a run: the identity of its data, the versions and the settings."""

from __future__ import annotations

import os
import platform
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np

from graphc.base import __version__
from graphc.ir.op import Array
from graphc.train.source import ArraySource, Source
from graphc.train.user_data import PartFileSource

Kind = Literal["arrays", "shards", "function"]

_WHOLE = 256 * 2**20
"""The most bytes of an array that is read in full; larger ones are read at _PIECES places."""
_PIECES = 4096
_PIECE = 4096


@dataclass(frozen=True)
class Identity:
    """The identity of data: its kind, a digest (empty for a function), and a description."""

    kind: Kind
    digest: str
    described: str


def identity(source: Source) -> Identity:
    """Return the identity of the data that a source takes its rows from."""
    inner = source.unweighted
    if isinstance(inner, ArraySource):
        text = ", ".join(f"{k} {a.dtype.name}{list(a.shape)}" for k, a in inner.arrays.items())
        return Identity("arrays", _digest(_of_arrays(inner.arrays)), text)
    if isinstance(inner, PartFileSource):
        count = len(inner.files)
        return Identity("shards", _digest(_of_shards(inner.files)), f"{count} shards")
    return Identity("function", "", "batches that code of the user's makes")


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    found = sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _of_arrays(arrays: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    for name, array in sorted(arrays.items()):
        yield f"{name}\0{array.dtype.str}\0{array.shape}\0".encode()
        if array.nbytes <= _WHOLE:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            continue
        for start in np.linspace(0, array.nbytes - _PIECE, _PIECES).astype(np.int64):
            yield _piece(array, int(start))


def _piece(array: Array, start: int) -> bytes:
    """Return bytes from the middle of an array in C order, without a copy of the array."""
    size = array.itemsize
    first, end = start // size, -(-(start + _PIECE) // size)
    skipped = start - first * size
    return array.flat[first:end].tobytes()[skipped : skipped + _PIECE]


def _of_shards(files: Iterable[Path]) -> Iterator[bytes]:
    """Yield the names, sizes and checksums of the arrays in each archive."""
    for file in files:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                facts = (file.name, entry.filename, entry.file_size, entry.CRC)
                yield "\0".join(map(str, facts)).encode()


VARIABLES = (
    "GRAPHC_VECTOR_BITS",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""The variables that have to be set before a process begins, and may change bits."""


@dataclass(frozen=True)
class MadeWith:
    """The versions, the processor, the cores, and the variables that are set."""

    graphc: str
    numpy: str
    llvmlite: str
    backend: str
    processor: str
    cores: int
    variables: dict[str, str]

    def __post_init__(self) -> None:
        texts = [self.graphc, self.numpy, self.llvmlite, self.backend, self.processor]
        known = isinstance(self.variables, dict) and type(self.cores) is int
        texts += self.variables.values() if known else ()
        if not known or not all(isinstance(text, str) for text in texts):
            raise ValueError("what it was made with is not described as expected")
        if not self.variables.keys() <= set(VARIABLES):
            raise ValueError("it names variables that no run depends on")

    def differences(self, other: MadeWith) -> list[str]:
        """Return texts about all settings that differ from the other's."""
        found = [
            f"{name} {mine} and {yours}"
            for name in ("graphc", "numpy", "llvmlite", "backend", "processor", "cores")
            if (mine := getattr(self, name)) != (yours := getattr(other, name))
        ]
        for name in VARIABLES:
            mine, yours = (one.variables.get(name, "unset") for one in (self, other))
            if mine != yours:
                found.append(f"{name} {mine} and {yours}")
        return found


def made_with(backend: str) -> MadeWith:
    """Return the versions and settings of this process."""
    return MadeWith(
        __version__,
        np.__version__,
        _llvmlite(),
        backend,
        _processor(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        variables(),
    )


def variables() -> dict[str, str]:
    """Return the values of those VARIABLES that are set."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _llvmlite() -> str:
    try:
        return metadata.version("llvmlite")
    except metadata.PackageNotFoundError:
        return "none"


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.partition(":")[2].strip() for line in file if line.startswith("model n"))
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()
