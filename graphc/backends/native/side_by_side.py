"""Runs of a program side by side: each thread takes whole series, in an arena of its own.

    one after the other    all threads share each kernel, and wait for each other between kernels
    side by side           a thread runs all kernels of a run, and waits for none

A run has rows of its own, as the blocks of a large batch have, and perhaps a state of its own.  A
series is one run, or some steps on one state, which then stays in the cache.  The bits are the
same, since series do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from graphc.backends.backend import Memory, Ready, Rows, SideBySide, Spread, ZeroCopy
from graphc.backends.layout import Block, start_of, table_index
from graphc.backends.native import pool
from graphc.backends.native.cache_keys import module_key
from graphc.backends.native.feeds import bind_feeds, readable
from graphc.backends.native.ir import Module
from graphc.backends.native.libraries import load_by_key
from graphc.backends.native.structures import structure, written_out
from graphc.backends.native.target import host
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.kernels.program import Buffer, Program

JOB = structure(
    "i64 count",  # of the series
    "ptr begin",  # the number of each series' first run, and of all runs
    "ptr rows",  # of each run
    "ptr first",  # the number of each run's first row among the rows of all
    "ptr chosen",  # the numbers of the rows that runs gather, one run after the other
    "ptr taken",  # a cache line for each thread: how many series of its share are taken
    "ptr function",  # of the program
    "ptr tables",  # of the program's memory: one for each thread
    "i64 table_bytes",
    "ptr entries",  # a `MOVED` for each entry of a table that differs between runs
    "i64 entry_bytes",  # of all of these
    "i64 area_bytes",  # of the memory of a thread for the rows that it gathers
    "ptr results",  # a `MOVED` for each
    "i64 result_bytes",
)
WORDS = {name: number for number, name in enumerate(JOB)}
MOVED = structure(
    "i64 place",  # of the entry in a table, or of the result in the arena, in bytes
    "ptr start",
    "i64 stride",
    "ptr numbers",  # for each run, how many strides its part is from the start; null for none
    "ptr area",  # where the first thread gathers rows of `stride` bytes; null if it need not
)
"""An array of which each run has a part."""
Words = tuple[int, int, int, int, int]
START, NUMBERS = (list(MOVED).index(name) for name in ("start", "numbers"))
FIRST_ENTRY = table_index(2)
"""The first entry of a table behind the arena and the scratch, which are those of a thread."""
ANY = 2**62
"""More rows than any array has."""

# Takes the series of its share, and then what is left of other threads': so a thread mostly
# has the same states in its cache.  It is a program of one epoch, and of as many parts as threads.
_SIDE_BY_SIDE = """\
define void @side_by_side(ptr %job, i64 %n, i64 %tid, i64 %threads, i64 %epoch) nounwind {
entry:
  %count = field %job.count
  %begins = field %job.begin
  %taken = field %job.taken
  %function = field %job.function
  %all_rows = field %job.rows
  %firsts = field %job.first
  %all_chosen = field %job.chosen
  %tables = field %job.tables
  %table_bytes = field %job.table_bytes
  %entries = field %job.entries
  %entry_bytes = field %job.entry_bytes
  %area_bytes = field %job.area_bytes
  %results = field %job.results
  %result_bytes = field %job.result_bytes
  %far = mul i64 %tid, %table_bytes
  %table = getelementptr i8, ptr %tables, i64 %far
  %away = mul i64 %tid, %area_bytes
  %arena = load ptr, ptr %table
  br label %choose
choose:
  %turn = phi i64 [ 0, %entry ], [ %turn_next, %leave ]
  %ahead = add i64 %tid, %turn
  %share = urem i64 %ahead, %threads
  %line = mul i64 %share, 64
  %taken_at = getelementptr i8, ptr %taken, i64 %line
  %before = mul i64 %share, %count
  %low = udiv i64 %before, %threads
  %within = add i64 %before, %count
  %high = udiv i64 %within, %threads
  if ult i64 %turn, %threads: take, done
take:
  %mine = atomicrmw add ptr %taken_at, i64 1 monotonic
  %series = add i64 %low, %mine
  if ult i64 %series, %high: begin, leave
leave:
  %turn_next = add i64 %turn, 1
  br label %choose
begin:
  %begin_at = getelementptr i64, ptr %begins, i64 %series
  %begun = load i64, ptr %begin_at
  %end_at = getelementptr i64, ptr %begin_at, i64 1
  %end = load i64, ptr %end_at
  br label %step
step:
  %number = phi i64 [ %begun, %begin ], [ %following, %next ]
  if ult i64 %number, %end: run, take
run:
  %rows_at = getelementptr i64, ptr %all_rows, i64 %number
  %rows = load i64, ptr %rows_at
  %first_at = getelementptr i64, ptr %firsts, i64 %number
  %first = load i64, ptr %first_at
  %chosen = getelementptr i64, ptr %all_chosen, i64 %first
  br label %feed
feed:
  %at = phi i64 [ 0, %run ], [ %at_next, %set ]
  if ult i64 %at, %entry_bytes: find, compute
find:
  %entry_of = getelementptr i8, ptr %entries, i64 %at
  %place = field %entry_of.place
  %part = call ptr @part(ptr %entry_of, i64 %number)
  %area = field %entry_of.area
  %bytes = field %entry_of.stride
  %own = getelementptr i8, ptr %area, i64 %away
  if eq ptr %area, null: set, gather
gather:
  %row = phi i64 [ 0, %find ], [ %row_next, %copy ]
  if ult i64 %row, %rows: copy, set
copy:
  %wanted_at = getelementptr i64, ptr %chosen, i64 %row
  %wanted = load i64, ptr %wanted_at
  %skipped = mul i64 %wanted, %bytes
  %from = getelementptr i8, ptr %part, i64 %skipped
  %passed = mul i64 %row, %bytes
  %to = getelementptr i8, ptr %own, i64 %passed
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  %row_next = add i64 %row, 1
  br label %gather
set:
  %address = phi ptr [ %part, %find ], [ %own, %gather ]
  %entry_at = getelementptr i8, ptr %table, i64 %place
  store ptr %address, ptr %entry_at
  %at_next = add i64 %at, $moved
  br label %feed
compute:
  call void %function(ptr %table, i64 %rows, i64 0, i64 1, i64 -1)
  br label %keep
keep:
  %kept = phi i64 [ 0, %compute ], [ %kept_next, %move ]
  if ult i64 %kept, %result_bytes: move, next
move:
  %result = getelementptr i8, ptr %results, i64 %kept
  %offset = field %result.place
  %size = field %result.stride
  %target = call ptr @part(ptr %result, i64 %number)
  %source = getelementptr i8, ptr %arena, i64 %offset
  call void @llvm.memcpy.p0.p0.i64(ptr %target, ptr %source, i64 %size, i1 false)
  %kept_next = add i64 %kept, $moved
  br label %keep
next:
  %following = add i64 %number, 1
  br label %step
done:
  ret void
}"""

_PART = """\
define internal ptr @part(ptr %moved, i64 %number) nounwind {
entry:
  %start = field %moved.start
  %stride = field %moved.stride
  %numbers = field %moved.numbers
  if eq ptr %numbers, null: shared, own
shared:
  ret ptr %start
own:
  %strides_at = getelementptr i64, ptr %numbers, i64 %number
  %strides = load i64, ptr %strides_at
  %bytes = mul i64 %strides, %stride
  %found = getelementptr i8, ptr %start, i64 %bytes
  ret ptr %found
}"""


def side_by_side_ir() -> str:
    """Return the module of the function `side_by_side`."""
    module = Module()
    module.declare("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
    structures = {"job": JOB, "moved": MOVED, "entry_of": MOVED, "result": MOVED}
    for part in (_PART, _SIDE_BY_SIDE):
        text = written_out(part, structures)
        module.functions.append(text.replace("$moved", str(8 * len(MOVED))))
    return module.text()


class Runs:
    """The runs of a program that is one function, whose address is `function`.

    `table` has the addresses on which one run works, `entries` the places of feeds and states in
    it.  The memory has an arena, a scratch and room for feeds for each thread, one after the other.
    `estimate` is the microseconds of a run on one thread, roughly.
    """

    def __init__(
        self,
        program: Program,
        function: int,
        table: Array,
        entries: Mapping[Block, int],
        memory: Memory,
        estimate: float,
    ) -> None:
        self._program, self._table, self._entries = program, table, entries
        self._memory, self._threads, self._estimate = memory, memory.threads, estimate
        self._tables = np.tile(table, (self._threads, 1))
        steps = np.arange(self._threads, dtype=np.uint64)
        self._tables[:, 0] += steps * np.uint64(program.arena.nbytes)
        self._tables[:, 1] += steps * table[2]
        self._job = np.zeros(len(JOB), np.uint64)
        self._taken = np.zeros(8 * self._threads, np.uint64)
        self._set(
            taken=self._taken.ctypes.data,
            function=function,
            tables=self._tables.ctypes.data,
            table_bytes=self._tables.strides[0],
            area_bytes=memory.feed_bytes,
        )
        self._states: tuple[Mapping[str, Spread], Array] = {}, _words(())
        """The states of the last runs, and their words: there may be many, always the same."""
        self._work: SideBySide | None = None
        self.library = load_by_key(
            module_key("side_by_side"), lambda: (side_by_side_ir(),), ("side_by_side",), host()
        )
        self._calls: dict[int, Callable[[int], None]] = {}
        """The calls of so many runs; each chooses its threads by what it measured."""

    def ready(self, work: SideBySide) -> Ready | None:
        """Return the calls that make these runs, or None if an array cannot be used as it is."""
        values = [self._result(name) for name in work.results]
        if any(value.space != "arena" or value.pitch for value in values):
            return None
        if not all(map(_is_plain, work.feeds.values())):
            return None
        job, count = self.prepared(work), len(work.rows)
        if count not in self._calls:
            time = count * self._estimate
            self._calls[count] = pool.bind(
                self.library, "side_by_side", job, threads=self._threads, estimate=time
            )
        calls = partial(self._taken.fill, 0), partial(self._calls[count], count)
        return Ready(calls, lambda: self._work is work, self._refeed, self._choose, self._fill)

    def prepared(self, work: SideBySide) -> Array:
        """Return the job of these runs."""
        count = len(work.rows)
        rows, first = np.empty((2, count), np.int64)
        begin = np.arange(count + 1) if work.begin is None else work.begin
        self._numbers = {"rows": rows, "first": first, "begin": begin}
        self._numbers |= {"number": np.arange(count), "state": work.numbers}
        at = {by: array.ctypes.data for by, array in self._numbers.items()}
        if work.states is not self._states[0]:
            self._tables[:, FIRST_ENTRY:] = self._table[FIRST_ENTRY:]
            self._states = work.states, _words(self._moved("state", work.states, at))
        self._states[1][:, NUMBERS] = at["state"]
        feeds = _words(self._moved("feed", work.feeds, at))
        self._moving = np.concatenate([feeds, self._states[1]])
        self._results = _words(
            _moved(start_of(self._result(name)), spread, at)
            for name, spread in work.results.items()
        )
        self._work = work
        self._choose(work.rows, work.chosen)
        self._set(count=len(begin) - 1, begin=at["begin"], rows=at["rows"], first=at["first"])
        self._set(entries=self._moving.ctypes.data, entry_bytes=self._moving.nbytes)
        self._set(results=self._results.ctypes.data, result_bytes=self._results.nbytes)
        self._taken[:] = 0
        return self._job

    def _choose(self, rows: Rows, chosen: Rows | None) -> None:
        """Set the rows of each run."""
        self._numbers["rows"][:] = rows
        np.subtract(np.cumsum(rows), rows, self._numbers["first"])
        self._chosen = chosen
        self._set(chosen=0 if chosen is None else chosen.ctypes.data)

    def _refeed(self, types: Mapping[str, TensorType], written: Sequence[Array]) -> ZeroCopy:
        """Return a check of feeds, which the prepared runs read from then on."""
        assert self._work is not None
        if not readable():
            return lambda _: None
        names = [name for name in self._work.feeds if ("feed", name) in self._entries]
        starts = {name: i * len(MOVED) + START for i, name in enumerate(names)}
        own = [*self._memory.written, *written]
        return bind_feeds(self._program, types, starts, self._moving, own, ANY)

    def _fill(self, results: Sequence[Array]) -> None:
        """Let the prepared runs fill these arrays."""
        self._results[:, START] = [array.ctypes.data for array in results]

    def _moved(
        self, space: str, parts: Mapping[str, Spread], at: Mapping[str, int]
    ) -> Iterator[Words]:
        """Yield a `MOVED` for each entry of the table that has a part in each run."""
        for name, spread in parts.items():
            place = self._entries.get((space, name))
            if place is not None:
                area = int(self._table[place]) if spread.by == "chosen" else 0
                yield _moved(8 * place, spread, at, area)

    def _result(self, name: str) -> Buffer:
        return self._program.buffers[self._program.outputs[name]]

    def _set(self, **words: int) -> None:
        for name, value in words.items():
            self._job[WORDS[name]] = value


def _moved(place: int, spread: Spread, at: Mapping[str, int], area: int = 0) -> Words:
    """Return a `MOVED`; `at` has the addresses of the numbers that count strides."""
    start = spread.array.ctypes.data + spread.offset
    return place, start, spread.stride, at.get(spread.by, 0), area


def _words(rows: Iterable[Words]) -> Array:
    return np.array(list(rows), np.uint64).reshape(-1, len(MOVED))


def _is_plain(spread: Spread) -> bool:
    return spread.array.flags.c_contiguous and spread.array.flags.aligned
