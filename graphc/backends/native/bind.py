"""Programs bound to memory: native calls, NumPy calls, and feeds read where they lie.

A builtin made of machine code (see feeds_ir) checks the arrays of a zero-copy feed, in a tenth of a
microsecond, and writes their addresses into the table of a program.  It reads array objects in the
layout of NumPy 2; if a probe finds another layout, no feed is zero-copy.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from graphc.backends.backend import Call, Link, Memory, Take, View
from graphc.backends.calls import bind_exchange, bind_reference
from graphc.backends.native import feeds_ir
from graphc.backends.native.cache import program_key
from graphc.backends.native.calls import bind as bind_call
from graphc.backends.native.jit import Library, builtin, load, load_by_key
from graphc.backends.native.segments import (
    ARENA,
    SCRATCH,
    Place,
    Segment,
    layout,
    place_of,
    table_index,
)
from graphc.backends.native.target import host
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, Batch, TensorType
from graphc.kernels.partition import kernel_microseconds
from graphc.kernels.program import Instr, Program

LONG = 20
"""A run of this many microseconds or more releases the interpreter's lock and may be shared."""


class NativeProgram:
    """The compiled code of a program, and the table of addresses that it runs on."""

    def __init__(
        self,
        program: Program,
        skip: frozenset[int],
        memory: Memory,
        link: Link | None = None,
    ) -> None:
        self.program, self.layout, self.memory = program, layout(program, skip), memory
        self.threads = memory.threads
        scratch = len(memory.scratch) // self.threads
        self.library = _library(program, skip, self.layout.symbols, scratch)
        sends = any(instr.kind == "send" for instr in program.instrs)
        self._link = link if sends else None
        self.table = np.zeros(len(self.layout.places) + 1, np.uint64)
        self.table[0] = memory.arena.ctypes.data
        self.table[1] = memory.scratch.ctypes.data
        self.table[2] = scratch
        self._kept: list[Array] = [memory.arena, memory.scratch]
        self.feeds: dict[str, int] = {}
        """The table entry that holds the address of each feed that only native code reads."""
        self._fill()
        self._addresses = self.table.copy()

    def _fill(self) -> None:
        names: dict[Place, str] = {}
        for buffer in self.program.buffers.values():
            names.setdefault(place_of(buffer), buffer.name)
        fixed = self._fixed_feeds()
        for slot, place in enumerate(self.layout.places):
            if place in (ARENA, SCRATCH):
                continue
            array = self.memory.view(self.program, names[place], self.program.capacity)
            self._kept.append(array)
            self.table[table_index(slot)] = array.ctypes.data
            if place[0] == "feed" and place[1] not in fixed:
                self.feeds[place[1]] = table_index(slot)

    def _fixed_feeds(self) -> set[str]:
        """Return the feeds whose address is fixed: NumPy calls read them, or they are results."""
        instrs, buffers = self.program.instrs, self.program.buffers
        names = [*self.program.outputs.values(), *self.program.gradients.values()]
        for segment in self.layout.segments:
            if segment.symbol is None:
                names.extend(instrs[segment.start].ins)
        for instr in instrs:
            names.extend(instr.outs)
        return {buffers[name].key for name in names if buffers[name].space == "feed"}

    def feed_in_place(self) -> None:
        """Reset the table to the workspace's addresses for all feeds."""
        self.table[:] = self._addresses

    @property
    def uninterrupted(self) -> bool:
        """Whether all calls are native: such calls do not warn, nor can they be interrupted."""
        return all(segment.symbol is not None for segment in self.layout.segments)

    def take(self, types: Mapping[str, TensorType]) -> tuple[Take, tuple[str, ...]] | None:
        """Return a check of feeds of these types, and the names of feeds that are to be copied.

        Return None if all feeds are copied.
        """
        if not readable():
            return None
        entries = {name: self.feeds[name] for name in types if name in self.feeds}
        take = bind_feeds(self.program, types, entries, self.table, self.memory.written)
        read = [name for name in self.program.feeds if name in types]
        return take, tuple(name for name in read if name not in entries)

    def calls(self, n: int, view: View) -> tuple[list[Call], int]:
        """Return the calls of a run with `n` rows, and how many of them are the forward pass."""
        calls: list[Call] = []
        boundary = None
        for segment in self.layout.segments:
            if boundary is None and segment.start >= self.program.boundary:
                boundary = len(calls)
            if segment.symbol is None:
                calls.extend(self._outside(self.program.instrs[segment.start], n, view))
                continue
            calls.append(partial(self._native(segment, segment.symbol, n), n))
            if self._link is not None:
                calls.append(self._link.poke)
        return calls, len(calls) if boundary is None else boundary

    def _native(self, segment: Segment, symbol: str, n: int) -> Callable[[int], None]:
        numbers = [i for epoch in segment.epochs for i in epoch]
        bodies = [body for i in numbers if (body := self.program.instrs[i].body) is not None]
        return bind_call(
            self.library,
            symbol,
            self.table,
            epochs=len(segment.epochs),
            threads=self.threads,
            long=sum(kernel_microseconds(body, n) for body in bodies) >= LONG,
        )

    def _outside(self, instr: Instr, n: int, view: View) -> Sequence[Call]:
        if instr.kind in ("send", "receive"):
            return bind_exchange(self.program.name, instr, view, self._link)
        return (bind_reference(instr, n, view),)


def _library(
    program: Program, skip: frozenset[int], symbols: Sequence[str], scratch: int
) -> Library:
    """Load the functions of a program; generate their IR only if no compiled object is cached."""
    target = host()

    def write() -> str:
        from graphc.backends.native.program import program_code

        code = program_code(program, target, skip)
        assert code.scratch <= scratch, "what the memory report said is enough"
        return code.ir

    known = program_key(program, target.bits, skip)
    if known is None:
        return load(write(), symbols, target)
    return load_by_key(known, write, symbols, target)


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
    library = _feeds_library()
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
def _feeds_library() -> Library:
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
