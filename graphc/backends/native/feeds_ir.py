"""The IR text of the check of feeds: a builtin whose argument is a dict of arrays by name.

`take` returns the number of rows, as an int, and has then written the address of each array's
data into the table of a program.  None means that an array is wrong, or that a program cannot
read it: nothing else is known, and entries of the table may be changed.

`self` is the address, as an int, of the words (each of eight bytes)

    ptr ndarray_type, ptr None, i64 names, i64 capacity, ptr table,
    i64 ranges, ptr ranges, i64 feeds, ptr feeds

where `names` is the number of arrays that the dict must have; each range is the first and the end
address of memory that no array may lie in, since runs write there; and each feed is

    ptr name, ptr dtype, i64 rank, ptr dims, i64 axis, i64 factor, i64 bytes, i64 slot,
    i64 width, i64 bound

The dtype is null for an array that the program does not read: any dtype is accepted.  The
dimension at `axis` is `factor` times the rows; an `axis` of -1 means that there is none.  `bytes`
are those of one row, or of the whole array without such an axis.  The address is written to entry
`slot` of the table, or not at all for -1.  Integers of `width` bytes must be below `bound`, as
unsigned ones; for width 0 there is no bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import Template

from graphc.backends.native.ir import Module

DATA, NDIM, DIMENSIONS, DESCR, FLAGS = 16, 24, 32, 56, 64
"""The byte offsets of the fields of an array object that are read; the object's type is at 8."""
USUAL = 0x0001 | 0x0100
"""The flags of an array that is C-contiguous and aligned."""
FEED_WORDS = 10

_PYTHON = (
    "declare ptr @PyLong_AsVoidPtr(ptr)",
    "declare ptr @PyLong_FromLongLong(i64)",
    "declare i64 @PyDict_Size(ptr)",
    "declare ptr @PyDict_GetItemWithError(ptr, ptr)",
    "declare void @PyErr_Clear()",
    "declare ptr @Py_NewRef(ptr)",
)


def feeds_ir() -> str:
    """Return the IR text of the module with `take`."""
    module = Module()
    for declaration in _PYTHON:
        module.declare(declaration)
    add_largest(module)
    frame = ("type", "none", "names", "capacity", "table", "ranges", "range", "feeds", "feed")
    feed = ("name", "dtype", "rank", "dims", "axis", "factor", "bytes", "slot", "width", "bound")
    words = {f"load_{name}": text for name, text in _loads("%frame", frame)}
    words |= {f"feed_{name}": text for name, text in _loads("%feed", feed)}
    places = {
        "data": DATA,
        "ndim": NDIM,
        "dimensions": DIMENSIONS,
        "descr": DESCR,
        "flags": FLAGS,
        "usual": USUAL,
        "feed_bytes_all": 8 * FEED_WORDS,
    }
    for text in (_BELOW, _APART, _ROWS, _FITS, _TAKE):
        module.functions.append(Template(text).substitute(words, **places))
    return module.text()


def _loads(base: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the name of each word of a structure, and the text that loads it into that value."""
    pointers = {"type", "none", "table", "range", "feed", "name", "dtype", "dims"}
    for i, name in enumerate(names):
        kind = "ptr" if name in pointers else "i64"
        value = f"%{name}s_at" if name in ("range", "feed") else f"%{name}"
        yield (
            name,
            f"%{name}.word = getelementptr i8, ptr {base}, i64 {8 * i}\n"
            f"  {value} = load {kind}, ptr %{name}.word",
        )


_BELOW = """\
define internal i1 @below(ptr %data, i64 %bytes, ptr %feed) #0 {
entry:
  ${feed_width}
  ${feed_bound}
  switch i64 %width, label %asked [ i64 0, label %free
                                    i64 4, label %narrow
                                    i64 8, label %broad ]
narrow:
  %few = lshr i64 %bytes, 2
  %most4 = call i64 @largest32(ptr %data, i64 %few)
  br label %compare
broad:
  %many = lshr i64 %bytes, 3
  %most8 = call i64 @largest64(ptr %data, i64 %many)
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
  ${load_ranges}
  ${load_range}
  %start = ptrtoint ptr %data to i64
  %end = add i64 %start, %bytes
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %following, %clear ]
  %more = icmp ult i64 %i, %ranges
  br i1 %more, label %look, label %done
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
  ${feed_rank}
  ${feed_dims}
  ${feed_axis}
  ${feed_factor}
  %dimensions_at = getelementptr i8, ptr %array, i64 ${dimensions}
  %dimensions = load ptr, ptr %dimensions_at
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %following, %fits ]
  %found = phi i64 [ -1, %entry ], [ %kept, %fits ]
  %more = icmp ult i64 %i, %rank
  br i1 %more, label %look, label %done
look:
  %size_at = getelementptr i64, ptr %dimensions, i64 %i
  %size = load i64, ptr %size_at
  %counts = icmp eq i64 %i, %axis
  br i1 %counts, label %batch, label %fixed
fixed:
  %wanted_at = getelementptr i64, ptr %dims, i64 %i
  %wanted = load i64, ptr %wanted_at
  %same = icmp eq i64 %size, %wanted
  br i1 %same, label %fits, label %misfit
batch:
  %known = icmp sgt i64 %rows, 0
  br i1 %known, label %compare, label %divide
divide:
  %quotient = udiv i64 %size, %factor
  br label %compare
compare:
  %count = phi i64 [ %rows, %batch ], [ %quotient, %divide ]
  %whole = mul i64 %count, %factor
  %exact = icmp eq i64 %whole, %size
  br i1 %exact, label %fits, label %misfit
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
  ${load_type}
  ${feed_dtype}
  ${feed_rank}
  %type_at = getelementptr i8, ptr %array, i64 8
  %class = load ptr, ptr %type_at
  %plain = icmp eq ptr %class, %type
  br i1 %plain, label %array_is, label %misfit
array_is:
  %descr_at = getelementptr i8, ptr %array, i64 ${descr}
  %descr = load ptr, ptr %descr_at
  %alike = icmp eq ptr %descr, %dtype
  %unread = icmp eq ptr %dtype, null
  %typed = or i1 %alike, %unread
  %ndim_at = getelementptr i8, ptr %array, i64 ${ndim}
  %ndim_word = load i32, ptr %ndim_at
  %ndim = sext i32 %ndim_word to i64
  %ranked = icmp eq i64 %ndim, %rank
  %flags_at = getelementptr i8, ptr %array, i64 ${flags}
  %flags = load i32, ptr %flags_at
  %some = and i32 %flags, ${usual}
  %usual = icmp eq i32 %some, ${usual}
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
define ptr @take(ptr %self, ptr %given) #0 {
entry:
  %frame = call ptr @PyLong_AsVoidPtr(ptr %self)
  ${load_none}
  ${load_names}
  ${load_capacity}
  ${load_table}
  ${load_feeds}
  ${load_feed}
  %size = call i64 @PyDict_Size(ptr %given)
  %all = icmp eq i64 %size, %names
  br i1 %all, label %next, label %unusual
next:
  %i = phi i64 [ 0, %entry ], [ %following, %taken ]
  %rows = phi i64 [ -1, %entry ], [ %known, %taken ]
  %more = icmp ult i64 %i, %feeds
  br i1 %more, label %look, label %answer
look:
  %offset = mul i64 %i, ${feed_bytes_all}
  %feed = getelementptr i8, ptr %feeds_at, i64 %offset
  ${feed_name}
  %array = call ptr @PyDict_GetItemWithError(ptr %given, ptr %name)
  %missing = icmp eq ptr %array, null
  br i1 %missing, label %unusual, label %check
check:
  %own = call i64 @fits(ptr %array, ptr %feed, ptr %frame, i64 %rows)
  %wrong = icmp eq i64 %own, 0
  br i1 %wrong, label %unusual, label %shaped
shaped:
  %counted = icmp sgt i64 %own, 0
  %scale = select i1 %counted, i64 %own, i64 1
  %known = select i1 %counted, i64 %own, i64 %rows
  %excess = icmp sgt i64 %own, %capacity
  br i1 %excess, label %unusual, label %measured
measured:
  ${feed_bytes}
  %length = mul i64 %bytes, %scale
  %data_at = getelementptr i8, ptr %array, i64 ${data}
  %data = load ptr, ptr %data_at
  %apart = call i1 @apart(ptr %frame, ptr %data, i64 %length)
  br i1 %apart, label %placed, label %unusual
placed:
  %below = call i1 @below(ptr %data, i64 %length, ptr %feed)
  br i1 %below, label %good, label %unusual
good:
  ${feed_slot}
  %stays = icmp slt i64 %slot, 0
  br i1 %stays, label %taken, label %write
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


def add_largest(module: Module) -> None:
    """Add `internal i64 @largest32(ptr data, i64 count)` and `@largest64`: 0 for a count of 0."""
    for bits in (32, 64):
        one, many = f"i{bits}", f"<16 x i{bits}>"
        module.declare(f"declare {many} @llvm.umax.v16i{bits}({many}, {many})")
        module.declare(f"declare {one} @llvm.vector.reduce.umax.v16i{bits}({many})")
        module.declare(f"declare {one} @llvm.umax.i{bits}({one}, {one})")
        widened = "zext i32 %top to i64" if bits == 32 else "add i64 %top, 0"
        text = Template(_LARGEST).substitute(bits=bits, align=bits // 8, widened=widened)
        module.functions.append(text)


_LARGEST = """\
define internal i64 @largest${bits}(ptr %data, i64 %count) #0 {
entry:
  %blocks = and i64 %count, -16
  br label %block
block:
  %i = phi i64 [ 0, %entry ], [ %i.next, %more ]
  %most = phi <16 x i${bits}> [ zeroinitializer, %entry ], [ %most.next, %more ]
  %inside = icmp ult i64 %i, %blocks
  br i1 %inside, label %more, label %across
more:
  %from = getelementptr i${bits}, ptr %data, i64 %i
  %some = load <16 x i${bits}>, ptr %from, align ${align}
  %most.next = call <16 x i${bits}> @llvm.umax.v16i${bits}(
    <16 x i${bits}> %most, <16 x i${bits}> %some)
  %i.next = add i64 %i, 16
  br label %block
across:
  %first = call i${bits} @llvm.vector.reduce.umax.v16i${bits}(<16 x i${bits}> %most)
  br label %rest
rest:
  %j = phi i64 [ %blocks, %across ], [ %j.next, %one ]
  %top = phi i${bits} [ %first, %across ], [ %top.next, %one ]
  %left = icmp ult i64 %j, %count
  br i1 %left, label %one, label %done
one:
  %at = getelementptr i${bits}, ptr %data, i64 %j
  %value = load i${bits}, ptr %at, align ${align}
  %top.next = call i${bits} @llvm.umax.i${bits}(i${bits} %top, i${bits} %value)
  %j.next = add i64 %j, 1
  br label %rest
done:
  %widened = ${widened}
  ret i64 %widened
}"""
