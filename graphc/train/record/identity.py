"""The identity of the data that a run was trained on: a digest that distinguishes other data."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from graphc.ir.op import Array
from graphc.train.arrays import ArraySource
from graphc.train.shards import ShardSource
from graphc.train.source import Source
from graphc.train.weights import Weighted

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
    inner = unwrapped(source)
    if isinstance(inner, ArraySource):
        text = ", ".join(f"{k} {a.dtype.name}{list(a.shape)}" for k, a in inner.arrays.items())
        return Identity("arrays", _digest(_of_arrays(inner.arrays)), text)
    if isinstance(inner, ShardSource):
        count = len(inner.files)
        return Identity("shards", _digest(_of_shards(inner.files)), f"{count} shards")
    return Identity("function", "", "batches that code of the user's makes")


def unwrapped(source: Source) -> Source:
    """Return the source without the weights that are fed beside it."""
    return source.inner if isinstance(source, Weighted) else source


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
                said = (file.name, entry.filename, entry.file_size, entry.CRC)
                yield "\0".join(map(str, said)).encode()
