"""The check of zero-copy feeds: a builtin whose argument is a dict of arrays.

It takes a tenth of a microsecond for each array.  It reads array objects in the
layout of NumPy 2; if a probe finds another layout, no feed is zero-copy.

The builtin returns the number of rows, as an int, and has then written the address of each array's
data into the table of a program.  None means that an array is wrong, or that the program cannot
read it in place; entries of the table may have changed already.

`self` is the address, as an int, of a `FRAME`.  The text has the shorthands of `ir.written_out`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from string import Template
from typing import Any

import numpy as np

from graphc.backends.backend import ZeroCopy
from graphc.backends.native.ir import Function, Module, Structure, Value, structure, written_out
from graphc.backends.native.jit import builtin, load
from graphc.backends.native.loop_structure import Masks, blocks
from graphc.backends.native.target import host
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, Batch, TensorType
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
    structures = {"frame": FRAME, "feed": FEED, "array": ARRAY}
    for text in (_BELOW, _APART, _ROWS, _FITS, _TAKE):
        short = Template(text).substitute(usual=USUAL, feed_size=8 * len(FEED))
        module.functions.append(written_out(short, structures))
    return module.text()


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


# True if every integer is below the feed's bound; compared as unsigned, negative ones are not.
_BELOW = """\
define internal i1 @below(ptr %data, i64 %bytes, ptr %feed) #0 {
entry:
  %width = field %feed.width
  %bound = field %feed.bound
  switch i64 %width, label %asked [ i64 0, label %free
                                    i64 4, label %narrow
                                    i64 8, label %broad ]
narrow:
  %few = lshr i64 %bytes, 2
  %most4 = call i64 @largest_uint32(ptr %data, i64 %few)
  br label %compare
broad:
  %many = lshr i64 %bytes, 3
  %most8 = call i64 @largest_uint64(ptr %data, i64 %many)
  br label %compare
compare:
  %most = phi i64 [ %most4, %narrow ], [ %most8, %broad ]
  %good = icmp ult i64 %most, %bound
  ret i1 %good
free:
  ret i1 true
asked:  ; smaller numbers, which Python looks at
  ret i1 false
}"""

# True if these bytes do not overlap memory that runs write to.
_APART = """\
define internal i1 @apart(ptr %frame, ptr %data, i64 %bytes) #0 {
entry:
  %ranges = field %frame.range_count
  %ranges_at = field %frame.ranges
  %start = ptrtoint ptr %data to i64
  %end = add i64 %start, %bytes
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %following, %clear ]
  if ult i64 %i, %ranges: look, done
look:
  %low_word = shl i64 %i, 1
  %low_at = getelementptr i64, ptr %ranges_at, i64 %low_word
  %low = load i64, ptr %low_at
  %high_at = getelementptr i8, ptr %low_at, i64 8
  %high = load i64, ptr %high_at
  %over = icmp ult i64 %start, %high
  %under = icmp ult i64 %low, %end
  %meets = and i1 %over, %under
  br i1 %meets, label %done, label %clear
clear:
  %following = add i64 %i, 1
  br label %next
done:
  %result = icmp uge i64 %i, %ranges
  ret i1 %result
}"""

# The rows of an array of the right rank: 0 if a dimension is wrong, or if `rows`, the count of
# the arrays before, differs; -1 if no dimension depends on the rows.
_ROWS = """\
define internal i64 @rows(ptr %array, ptr %feed, i64 %rows) #0 {
entry:
  %rank = field %feed.rank
  %dims = field %feed.dims
  %axis = field %feed.axis
  %factor = field %feed.factor
  %dimensions = field %array.dimensions
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %following, %fits ]
  %found = phi i64 [ -1, %entry ], [ %kept, %fits ]
  if ult i64 %i, %rank: look, done
look:
  %size_at = getelementptr i64, ptr %dimensions, i64 %i
  %size = load i64, ptr %size_at
  if eq i64 %i, %axis: batch, fixed
fixed:
  %wanted_at = getelementptr i64, ptr %dims, i64 %i
  %wanted = load i64, ptr %wanted_at
  if eq i64 %size, %wanted: fits, misfit
batch:
  if sgt i64 %rows, 0: compare, divide
divide:
  %quotient = udiv i64 %size, %factor
  br label %compare
compare:
  %count = phi i64 [ %rows, %batch ], [ %quotient, %divide ]
  %whole = mul i64 %count, %factor
  if eq i64 %whole, %size: fits, misfit
fits:
  %kept = phi i64 [ %found, %fixed ], [ %count, %compare ]
  %following = add i64 %i, 1
  br label %next
misfit:
  ret i64 0
done:
  ret i64 %found
}"""

# The rows of an array, as above, if its data can be read where it lies; 0 if it cannot.
_FITS = """\
define internal i64 @fits(ptr %array, ptr %feed, ptr %frame, i64 %rows) #0 {
entry:
  %type = field %frame.type
  %dtype = field %feed.dtype
  %rank = field %feed.rank
  %class = field %array.type
  if eq ptr %class, %type: array_is, misfit
array_is:
  %descr = field %array.descr
  %alike = icmp eq ptr %descr, %dtype
  %unread = icmp eq ptr %dtype, null
  %typed = or i1 %alike, %unread
  %ndim_word = field %array.ndim
  %ndim = sext i32 %ndim_word to i64
  %ranked = icmp eq i64 %ndim, %rank
  %flags = field %array.flags
  %some = and i32 %flags, $usual
  %usual = icmp eq i32 %some, $usual
  %fitting = and i1 %typed, %ranked
  %good = and i1 %fitting, %usual
  br i1 %good, label %shaped, label %misfit
shaped:
  %found = call i64 @rows(ptr %array, ptr %feed, i64 %rows)
  ret i64 %found
misfit:
  ret i64 0
}"""

_TAKE = """\
define ptr @check_feeds(ptr %self, ptr %given) #0 {
entry:
  %frame = call ptr @PyLong_AsVoidPtr(ptr %self)
  %none = field %frame.none
  %names = field %frame.names
  %capacity = field %frame.capacity
  %table = field %frame.table
  %feeds_at = field %frame.feeds
  %size = call i64 @PyDict_Size(ptr %given)
  if eq i64 %size, %names: next, unusual
next:
  %i = phi i64 [ 0, %entry ], [ %following, %taken ]
  %rows = phi i64 [ -1, %entry ], [ %known, %taken ]
  if ult i64 %i, %names: look, answer
look:
  %offset = mul i64 %i, $feed_size
  %feed = getelementptr i8, ptr %feeds_at, i64 %offset
  %name = field %feed.name
  %array = call ptr @PyDict_GetItemWithError(ptr %given, ptr %name)
  if eq ptr %array, null: unusual, check
check:
  %own = call i64 @fits(ptr %array, ptr %feed, ptr %frame, i64 %rows)
  if eq i64 %own, 0: unusual, shaped
shaped:
  %counted = icmp sgt i64 %own, 0
  %scale = select i1 %counted, i64 %own, i64 1
  %known = select i1 %counted, i64 %own, i64 %rows
  if sgt i64 %own, %capacity: unusual, measured
measured:
  %bytes = field %feed.bytes
  %length = mul i64 %bytes, %scale
  %data = field %array.data
  %apart = call i1 @apart(ptr %frame, ptr %data, i64 %length)
  br i1 %apart, label %placed, label %unusual
placed:
  %below = call i1 @below(ptr %data, i64 %length, ptr %feed)
  br i1 %below, label %good, label %unusual
good:
  %slot = field %feed.slot
  if slt i64 %slot, 0: taken, write
write:
  %table_at = getelementptr i64, ptr %table, i64 %slot
  store ptr %data, ptr %table_at
  br label %taken
taken:
  %following = add i64 %i, 1
  br label %next
answer:
  %batched = icmp sgt i64 %rows, 0
  %n = select i1 %batched, i64 %rows, i64 1
  %number = call ptr @PyLong_FromLongLong(i64 %n)
  ret ptr %number
unusual:
  call void @PyErr_Clear()
  %nothing = call ptr @Py_NewRef(ptr %none)
  ret ptr %nothing
}"""


def bind_feeds(
    program: Program,
    types: Mapping[str, TensorType],
    entries: Mapping[str, int],
    table: Array,
    written: Sequence[Array],
) -> ZeroCopy:
    """Return `check(arrays)`, which checks arrays by name and writes their addresses to `table`.

    `check` returns the number of rows, or None: native code cannot read another dtype or order, or
    memory within `written`.  `types` has every array that must be given.  Arrays without an entry
    in `entries` are only checked, and those that the program does not read only for their shapes.
    """
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
    own = id(np.ndarray), id(None), len(names), program.capacity, table.ctypes.data
    memory = len(written), ctypes.addressof(ranges), ctypes.addressof(feeds)
    library = load(feeds_ir(), ("check_feeds",), host())
    keep = (names, dtypes, dims, ranges, feeds, table, list(written), library)
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
    batch = [(i, dim.factor) for i, dim in enumerate(type.shape) if isinstance(dim, Batch)]
    axis, factor = batch[0] if batch else (-1, 0)
    bound = None if dtype is None else program.index_bounds.get(name)
    where = ctypes.addressof(dims), axis, factor, type.nbytes(1), entries.get(name, -1)
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
