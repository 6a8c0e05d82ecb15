"""Which data a run was trained on: a digest, by which others are told."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from graphc.op import Array
from graphc.train.arrays import ArraySource
from graphc.train.shards import ShardSource
from graphc.train.source import Source
from graphc.train.weights import Weighted

Kind = Literal["arrays", "shards", "function"]

_WHOLE = 256 * 2**20
"""Arrays of so many bytes are read in full, larger ones at PIECES places."""
_PIECES = 4096
_PIECE = 4096


@dataclass(frozen=True)
class Identity:
    """What is known of data: its kind, a digest (empty for a function), and it in words."""

    kind: Kind
    digest: str
    described: str


def identity(source: Source) -> Identity:
    """The identity of what a source takes its rows from."""
    inner = unwrapped(source)
    if isinstance(inner, ArraySource):
        text = ", ".join(f"{k} {a.dtype.name}{list(a.shape)}" for k, a in inner.arrays.items())
        return Identity("arrays", _digest(_of_arrays(inner.arrays)), text)
    if isinstance(inner, ShardSource):
        count = len(inner.files)
        return Identity("shards", _digest(_of_shards(inner.files)), f"{count} shards")
    return Identity("function", "", "batches that code of the user's makes")


def unwrapped(source: Source) -> Source:
    """The source without the weights that are fed beside it."""
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
    """Bytes from the middle of an array in C order, which is not copied for it."""
    size = array.itemsize
    first, end = start // size, -(-(start + _PIECE) // size)
    skipped = start - first * size
    return array.flat[first:end].tobytes()[skipped : skipped + _PIECE]


def _of_shards(files: Iterable[Path]) -> Iterator[bytes]:
    """What each archive says of its arrays: names, sizes, and the checksums of their bytes."""
    for file in files:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                said = (file.name, entry.filename, entry.file_size, entry.CRC)
                yield "\0".join(map(str, said)).encode()
