"""The check of zero-copy feeds: a builtin whose argument is a dict of arrays.

It takes a tenth of a microsecond for each array.  It reads array objects in the
layout of NumPy 2; if a probe finds another layout, no feed is zero-copy.

The builtin returns the number of rows, as an int, and has then written the address of each array's
data into the table of a program.  None means that an array is wrong, or that the program cannot
read it in place; entries of the table may have changed already.

`self` is the address, as an int, of a `FRAME`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from typing import Any

import numpy as np

from graphc.backends.backend import ZeroCopy
from graphc.backends.native.cache_keys import module_key
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.libraries import load_by_key
from graphc.backends.native.loop_structure import Masks, blocks
from graphc.backends.native.python_function import builtin
from graphc.backends.native.structures import Structure, structure
from graphc.backends.native.target import host
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, Batch, N, TensorType, batch_axes
from graphc.kernels.kernel import LANES
from graphc.kernels.program import Program

ARRAY: Structure = {
    "type": ("ptr", 8),
    "data": ("ptr", 16),
    "ndim": ("i32", 24),
    "dimensions": ("ptr", 32),
    "descr": ("ptr", 56),
    "flags": ("i32", 64),
}
"""The fields of an array object that are read."""
USUAL = 0x0001 | 0x0100
"""The flags of an array that is C-contiguous and aligned."""
FRAME = structure(
    "ptr type",  # ndarray
    "ptr none",
    "ptr blank",  # an array that is looked at in place of an object that is none
    "i64 names",  # of arrays that the dict must have: a feed for each
    "i64 capacity",
    "ptr table",
    "i64 range_count",
    "ptr ranges",  # first and end addresses of memory that runs write to: no array may lie there
    "ptr feeds",
)
FEED = structure(
    "ptr name",
    "ptr dtype",  # null for an array that the program does not read: any dtype is accepted
    "i64 rank",
    "ptr dims",
    "i64 axis",  # the dimension that is `factor` times the rows, or -1 if none is
    "i64 factor",
    "i64 bytes",  # of one row, or of the whole array if no dimension depends on the rows
    "i64 slot",  # the entry of the table that takes the address, or -1
    "i64 width",  # integers of so many bytes must be below `bound`, as unsigned ones; 0 for none
    "i64 bound",
)

_PYTHON = (
    "declare ptr @PyLong_AsVoidPtr(ptr)",
    "declare ptr @PyLong_FromLongLong(i64)",
    "declare i64 @PyDict_Size(ptr)",
    "declare ptr @PyDict_GetItemWithError(ptr, ptr)",
    "declare void @PyErr_Clear()",
    "declare ptr @Py_NewRef(ptr)",
)


@lru_cache
def feeds_ir() -> str:
    """Return the IR text of the module with `check_feeds`."""
    module = Module()
    for declaration in _PYTHON:
        module.declare(declaration)
    for dtype in ("uint32", "uint64"):
        _add_largest(module, dtype)
    f = Function(module, "check_feeds", "ptr %self, ptr %given", linkage="", result="ptr")
    _Check(f).emit()
    module.add(f)
    return module.text()


class _Check:
    """The emitter of `check_feeds`, which looks at all arrays even if one is wrong."""

    def __init__(self, f: Function) -> None:
        self.f = f
        frame = f.value("call ptr @PyLong_AsVoidPtr(ptr %self)")
        self.frame = {name: f.field(frame, FRAME, name) for name in FRAME}

    def emit(self) -> None:
        """Emit the loop over the feeds, and the answer."""
        f, names = self.f, self.frame["names"]
        size = f.value("call i64 @PyDict_Size(ptr %given)")
        state = [("i64", "-1"), ("i1", self._is("eq i64", size, names))]
        rows, good = f.loop(0, names, 1, self._feed, state)
        f.do(f"br i1 {good}, label %answer, label %unusual\nanswer:")
        batched = self._is("sgt i64", rows, 0)
        number = f.value(f"select i1 {batched}, i64 {rows}, i64 1")
        answer = f.value(f"call ptr @PyLong_FromLongLong(i64 {number})")
        f.do(f"ret ptr {answer}\nunusual:")
        none = f.value(f"call ptr @Py_NewRef(ptr {self.frame['none']})")
        f.do(f"ret ptr {none}")

    def _feed(self, number: Value, carried: list[Value]) -> list[Value]:
        """Emit the check of one feed: from rows, or -1, and whether all is well, to new ones."""
        f, (rows, well) = self.f, carried
        at = f.address(self.frame["feeds"], f.mul(number, 8 * len(FEED)), "i8")
        feed = {name: f.field(at, FEED, name) for name in FEED}
        array, is_array = self._array(feed["name"])
        fitting, ranked = self._fits(array, feed)
        # With 0 dimensions and 0 bytes, the loops read nothing of an array that is wrong.
        rank = f.value(f"select i1 {ranked}, i64 {feed['rank']}, i64 0")
        own, shaped = self._rows(f.field(array, ARRAY, "dimensions"), feed, rank, rows)
        some, few = self._is("ne i64", own, 0), self._is("sle i64", own, self.frame["capacity"])
        readable = self._all(well, is_array, fitting, ranked, shaped, some, few)
        counted = self._is("sgt i64", own, 0)
        scale = f.value(f"select i1 {counted}, i64 {own}, i64 1")
        nbytes = f.mul(feed["bytes"], f.value(f"select i1 {readable}, i64 {scale}, i64 0"))
        data = f.field(array, ARRAY, "data")
        good = self._all(readable, self._apart(data, nbytes), self._below(data, nbytes, feed))
        slot = feed["slot"]
        place = f.address(self.frame["table"], slot, "ptr")
        writes = self._all(good, self._is("sge i64", slot, 0))
        f.when(writes, lambda: f.do(f"store ptr {data}, ptr {place}"))
        return [f.value(f"select i1 {counted}, i64 {own}, i64 {rows}"), good]

    def _array(self, name: Value) -> tuple[Value, Value]:
        """Emit the array of a name, or the blank one, and whether there is one."""
        f, blank = self.f, self.frame["blank"]
        given = f.value(f"call ptr @PyDict_GetItemWithError(ptr %given, ptr {name})")
        missing = self._is("eq ptr", given, "null")
        f.when(missing, lambda: f.do("call void @PyErr_Clear()"))
        given = f.value(f"select i1 {missing}, ptr {blank}, ptr {given}")
        usual = self._is("eq ptr", f.field(given, ARRAY, "type"), self.frame["type"])
        array = f.value(f"select i1 {usual}, ptr {given}, ptr {blank}")
        return array, self._is("ne ptr", array, blank)

    def _fits(self, array: Value, feed: Mapping[str, Value]) -> tuple[Value, Value]:
        """Emit whether the data of an array can be read in place, and whether its rank is right."""
        f, dtype = self.f, feed["dtype"]
        alike = self._is("eq ptr", f.field(array, ARRAY, "descr"), dtype)
        typed = f.value(f"or i1 {alike}, {self._is('eq ptr', dtype, 'null')}")
        flags = f.value(f"and i32 {f.field(array, ARRAY, 'flags')}, {USUAL}")
        rank = f.value(f"sext i32 {f.field(array, ARRAY, 'ndim')} to i64")
        usual = self._is("eq i32", flags, USUAL)
        return self._all(typed, usual), self._is("eq i64", rank, feed["rank"])

    def _rows(
        self, sizes: Value, feed: Mapping[str, Value], rank: Value, rows: Value
    ) -> tuple[Value, Value]:
        """Emit the rows of an array, -1 if no dimension depends on them, and whether all fit.

        `rows` is the count of the arrays before, if any.
        """
        f, factor = self.f, feed["factor"]
        known = self._is("sgt i64", rows, 0)

        def dimension(i: Value, carried: list[Value]) -> list[Value]:
            """Emit the comparison of one dimension with the declared one."""
            found, fit = carried
            size, wanted = self._word(sizes, i), self._word(feed["dims"], i)
            batch = self._is("eq i64", i, feed["axis"])
            quotient = f.quotient(size, factor)
            count = f.value(f"select i1 {known}, i64 {rows}, i64 {quotient}")
            whole = f.value(f"select i1 {batch}, i64 {f.mul(count, factor)}, i64 {wanted}")
            kept = f.value(f"select i1 {batch}, i64 {count}, i64 {found}")
            return [kept, self._all(fit, self._is("eq i64", size, whole))]

        found, fit = f.loop(0, rank, 1, dimension, [("i64", "-1"), ("i1", "true")])
        return found, fit

    def _apart(self, data: Value, nbytes: Value) -> Value:
        """Emit whether these bytes do not overlap memory that runs write to."""
        f, ranges = self.f, self.frame["ranges"]
        start = f.value(f"ptrtoint ptr {data} to i64")
        end = f.add(start, nbytes)

        def range(i: Value, carried: list[Value]) -> list[Value]:
            low, high = (self._word(ranges, f.add(f.mul(i, 2), word)) for word in (0, 1))
            before, behind = self._is("ule i64", end, low), self._is("uge i64", start, high)
            return [self._all(carried[0], f.value(f"or i1 {before}, {behind}"))]

        return f.loop(0, self.frame["range_count"], 1, range, [("i1", "true")])[0]

    def _below(self, data: Value, nbytes: Value, feed: Mapping[str, Value]) -> Value:
        """Emit whether every integer is below the feed's bound; as unsigned, negative ones are not.

        Python looks at integers of fewer than four bytes.
        """
        f, width = self.f, feed["width"]
        wide, most = self._is("uge i64", width, 4), "0"
        for size in (4, 8):
            asked = self._is("eq i64", width, size)
            count = f.value(f"select i1 {asked}, i64 {f.quotient(nbytes, size)}, i64 0")
            found = f.value(f"call i64 @largest_uint{8 * size}(ptr {data}, i64 {count})")
            most = f.value(f"or i64 {most}, {found}")
        under = self._all(wide, self._is("ult i64", most, feed["bound"]))
        return f.value(f"or i1 {under}, {self._is('eq i64', width, 0)}")

    def _word(self, base: Value, index: Value) -> Value:
        return self.f.value(f"load i64, ptr {self.f.address(base, index, 'i64')}")

    def _is(self, comparison: str, a: Value, b: Value | int) -> Value:
        return self.f.value(f"icmp {comparison} {a}, {b}")

    def _all(self, *conditions: Value) -> Value:
        return reduce(self.f.both, conditions)


def _add_largest(module: Module, dtype: str) -> None:
    """Add `i64 @largest_uint32(ptr data, i64 count)`, or that of uint64; 0 for a count of 0."""
    f = Function(module, f"largest_{dtype}", "ptr %data, i64 %count", result="i64")
    v = Vectors(f, LANES)

    def visit(column: Value | int, masks: Masks, most: list[Value]) -> list[Value]:
        x = v.load(f.address("%data", column, element_type(dtype)), dtype, masks[0])
        return [v.maximum(most[0], x, dtype)]

    (most,) = blocks(v, 0, "%count", visit, [(v.type(dtype), v.const(0, dtype))])
    top = v.max(most, dtype)
    f.do(f"ret i64 {top if dtype == 'uint64' else f.value(f'zext i32 {top} to i64')}")
    module.add(f)


def bind_feeds(
    program: Program,
    types: Mapping[str, TensorType],
    entries: Mapping[str, int],
    table: Array,
    written: Sequence[Array],
    capacity: int,
) -> ZeroCopy:
    """Return `check(arrays)`, which checks arrays by name and writes their addresses to `table`.

    `check` returns the number of rows, or None: native code cannot read another dtype or order,
    memory within `written`, or more rows than `capacity`.  `types` has every array that must be
    given.  Arrays without an entry in `entries` are only checked, and those that the program does
    not read only for their shapes.
    """
    # Keyword arguments are interned: a dict finds the same object without comparing text.
    names = [sys.intern(name) for name in types]
    dtypes = {name: np.dtype(types[name].dtype) for name in names if name in program.feeds}
    dims = {n: _words([d if isinstance(d, int) else 0 for d in types[n].shape]) for n in names}
    starts = [(int(array.ctypes.data), array.nbytes) for array in written]
    ranges = _words([end for start, size in starts for end in (start, start + size)])
    feeds = _words(
        [
            word
            for name in names
            for word in _feed(program, name, types[name], dtypes.get(name), dims[name], entries)
        ]
    )
    blank = np.zeros(0)
    own = id(np.ndarray), id(None), id(blank), len(names), capacity, table.ctypes.data
    memory = len(written), ctypes.addressof(ranges), ctypes.addressof(feeds)
    library = load_by_key(module_key("feeds"), lambda: (feeds_ir(),), ("check_feeds",), host())
    keep = (blank, names, dtypes, dims, ranges, feeds, table, list(written), library)
    return builtin("check_feeds", library.address("check_feeds"), _words([*own, *memory]), keep)


def _feed(
    program: Program,
    name: str,
    type: TensorType,
    dtype: np.dtype[Any] | None,
    dims: ctypes.Array[ctypes.c_uint64],
    entries: Mapping[str, int],
) -> list[int]:
    """Return one feed's `FEED` structure as words."""
    axis, rows = next(iter(batch_axes(type.shape)), (-1, N))
    bound = None if dtype is None else program.index_bounds.get(name)
    assert not isinstance(bound, Batch), "such feeds are copied"
    where = ctypes.addressof(dims), axis, rows.factor, type.nbytes(1), entries.get(name, -1)
    limit = 0 if bound is None else ITEMSIZE[type.dtype], bound or 0
    return [id(name), 0 if dtype is None else id(dtype), type.rank, *where, *limit]


def _words(values: Sequence[int]) -> ctypes.Array[ctypes.c_uint64]:
    """Return integers as 64-bit words; negative ones wrap."""
    return (ctypes.c_uint64 * len(values))(*values)


@lru_cache
def readable() -> bool:
    """Return whether array objects have the memory layout that the check expects."""
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    # Builds that trace references, and free-threaded ones, have larger object headers.
    if object.__basicsize__ != 16 or np.ndarray.__basicsize__ < ARRAY["flags"][1] + 4:
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
    def field(name: str) -> int:
        type, offset = ARRAY[name]
        kind = ctypes.c_int if type == "i32" else ctypes.c_uint64
        return kind.from_address(id(array) + offset).value

    if field("type") != id(type(array)) or field("ndim") != array.ndim:
        return False
    shape = (ctypes.c_int64 * array.ndim).from_address(field("dimensions"))
    flags = (array.flags.c_contiguous and 0x0001) | (array.flags.aligned and 0x0100)
    return (
        tuple(shape) == array.shape
        and field("data") == array.ctypes.data
        and field("descr") == id(array.dtype)
        and field("flags") & USUAL == flags
    )
