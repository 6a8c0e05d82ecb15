"""Zero-copy feeds: native code reads a user's arrays where they lie.

A builtin made of machine code (see feeds_ir) checks the arrays, in a tenth of a microsecond, and
writes their addresses into the table of a program.  It reads array objects in the layout of
NumPy 2; if a probe finds another layout, no feed is zero-copy.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.backends.backend import Take
from graphc.backends.native import feeds_ir
from graphc.backends.native.builtin import builtin
from graphc.backends.native.jit import Library, load
from graphc.backends.native.target import host
from graphc.ir.op import Array
from graphc.ir.plan import Program
from graphc.ir.tensor_type import ITEMSIZE, Batch, TensorType


def bind_feeds(
    program: Program,
    types: Mapping[str, TensorType],
    entries: Mapping[str, int],
    table: Array,
    written: Sequence[Array],
) -> Take:
    """Return `take(arrays)`, which checks arrays by name and writes their addresses to `table`.

    `take` returns the number of rows, or None if an array is wrong or native code cannot read it:
    another dtype or order, or memory within `written`.  `types` has every array that must be
    given.  The address of an array in `entries` is written to that entry of the table; other
    arrays are only checked, and those that the program does not read only for their shapes.
    """
    texts = [sys.intern(name) for name in types]
    dtypes = {name: np.dtype(types[name].dtype) for name in texts if name in program.feeds}
    dims = {name: _dims(types[name]) for name in texts}
    ranges = _words([end for array in written for end in (_start(array), _end(array))])
    feeds = _words(
        [
            word
            for name in texts
            for word in _feed(program, name, types[name], dtypes.get(name), dims[name], entries)
        ]
    )
    frame = _words(
        [
            id(np.ndarray),
            id(None),
            len(texts),
            program.capacity,
            table.ctypes.data,
            len(written),
            ctypes.addressof(ranges),
            len(texts),
            ctypes.addressof(feeds),
        ]
    )
    library = _library()
    keep = (texts, dtypes, dims, ranges, feeds, table, list(written), library)
    return builtin("take", library.address("take"), frame, keep)


def _feed(
    program: Program,
    name: str,
    type: TensorType,
    dtype: np.dtype[Any] | None,
    dims: ctypes.Array[ctypes.c_uint64],
    entries: Mapping[str, int],
) -> list[int]:
    """Return the words of one feed, in the order that feeds_ir documents."""
    axis, factor = next(
        ((i, dim.factor) for i, dim in enumerate(type.shape) if isinstance(dim, Batch)), (-1, 0)
    )
    bound = None if dtype is None else program.index_bounds.get(name)
    return [
        id(name),
        0 if dtype is None else id(dtype),
        type.rank,
        ctypes.addressof(dims),
        axis,
        factor,
        type.nbytes(1),
        entries.get(name, -1),
        0 if bound is None else ITEMSIZE[type.dtype],
        bound or 0,
    ]


def _dims(type: TensorType) -> ctypes.Array[ctypes.c_uint64]:
    return _words([dim if isinstance(dim, int) else 0 for dim in type.shape])


def _words(values: Sequence[int]) -> ctypes.Array[ctypes.c_uint64]:
    """Return integers as 64-bit words; negative ones wrap."""
    return (ctypes.c_uint64 * len(values))(*values)


def _start(array: Array) -> int:
    return int(array.ctypes.data)


def _end(array: Array) -> int:
    return int(array.ctypes.data) + array.nbytes


@lru_cache
def _library() -> Library:
    return load(feeds_ir.feeds_ir(), ("take",), host())


@lru_cache
def readable() -> bool:
    """Return whether array objects have the memory layout that the check expects."""
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    if object.__basicsize__ != 16 or np.ndarray.__basicsize__ < feeds_ir.FLAGS + 4:
        return False
    return all(_as_expected(array) for array in _probes())


def _probes() -> list[Array]:
    """Return arrays that differ in every field that the check reads."""
    matrix = np.zeros((3, 5), np.float32)
    odd = np.zeros(33, np.uint8)[1:].view(np.int64)
    return [
        matrix,
        matrix[:, ::2],
        matrix.T,
        matrix[1:],
        odd,
        np.zeros((), np.float64),
        np.zeros((2, 3, 4, 5), np.bool_),
        np.zeros(7, ">f4"),
        np.zeros((0, 2), np.int32),
    ]


def _as_expected(array: Array) -> bool:
    def word(offset: int, type: Any = ctypes.c_uint64) -> int:
        return int(type.from_address(id(array) + offset).value)

    if word(8) != id(type(array)) or word(feeds_ir.NDIM, ctypes.c_int) != array.ndim:
        return False
    dims = word(feeds_ir.DIMENSIONS)
    shape = tuple(ctypes.c_int64.from_address(dims + 8 * i).value for i in range(array.ndim))
    flags = (array.flags.c_contiguous and 0x0001) | (array.flags.aligned and 0x0100)
    return (
        shape == array.shape
        and word(feeds_ir.DATA) == array.ctypes.data
        and word(feeds_ir.DESCR) == id(array.dtype)
        and word(feeds_ir.FLAGS, ctypes.c_int) & feeds_ir.USUAL == flags
    )
