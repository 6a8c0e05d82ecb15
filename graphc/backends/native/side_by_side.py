"""Runs of a program side by side: each thread takes whole runs, in an arena of its own.

    one after the other    all threads share each kernel, and wait for each other between kernels
    side by side           a thread runs all kernels of a run, and waits for none

A run has rows of its own, as the blocks of a large batch have, and perhaps a state of its own, as
the members of a population have.  The bits are the same, since runs do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from graphc.backends.backend import Call, Memory, SideBySide, Spread
from graphc.backends.layout import Block, start_of
from graphc.backends.native import pool
from graphc.backends.native.cache_keys import module_key
from graphc.backends.native.ir import Module
from graphc.backends.native.libraries import load_by_key
from graphc.backends.native.structures import structure, written_out
from graphc.backends.native.target import host
from graphc.ir.op import Array
from graphc.kernels.program import Buffer, Program

JOB = structure(
    "i64 next",  # the first run that no thread has taken
    "i64 count",  # of the runs
    "ptr function",  # of the program
    "ptr runs",  # a `RUN` for each
    "ptr tables",  # of the program's memory: one for each thread
    "i64 table_bytes",
    "ptr entries",  # a `MOVED` for each entry of a table that differs between runs
    "i64 entry_bytes",  # of all of these
    "i64 area_bytes",  # of the memory of a thread for the rows that it gathers
    "ptr results",  # a `MOVED` for each
    "i64 result_bytes",
)
WORDS = tuple(JOB)
RUN = structure(
    "i64 rows",
    "ptr chosen",  # the numbers of the rows that it gathers
    "i64 none",  # 0
    "i64 number",  # of the run
    "i64 first",  # the number of its first row among those of all runs
    "i64 state",  # the number of its state
)
MOVED = structure(
    "i64 place",  # of the entry in a table, or of the result in the arena, in bytes
    "ptr start",
    "i64 stride",
    "i64 index",  # the field of `RUN` that counts the strides from the start, in bytes
    "ptr area",  # where the first thread gathers rows of `stride` bytes; null if it need not
)
"""An array of which each run has a part."""
Words = tuple[int, int, int, int, int]

# Takes runs until none is left.  It is a program of one epoch, and of as many parts as threads.
_SIDE_BY_SIDE = """\
define void @side_by_side(ptr %job, i64 %n, i64 %tid, i64 %threads, i64 %epoch) nounwind {
entry:
  %count = field %job.count
  %function = field %job.function
  %runs = field %job.runs
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
  br label %take
take:
  %number = atomicrmw add ptr %job, i64 1 monotonic
  if ult i64 %number, %count: begin, done
begin:
  %before = mul i64 %number, $run
  %run = getelementptr i8, ptr %runs, i64 %before
  %rows = field %run.rows
  %chosen = field %run.chosen
  br label %feed
feed:
  %at = phi i64 [ 0, %begin ], [ %at_next, %set ]
  if ult i64 %at, %entry_bytes: find, compute
find:
  %entry_of = getelementptr i8, ptr %entries, i64 %at
  %place = field %entry_of.place
  %part = call ptr @part(ptr %entry_of, ptr %run)
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
  if ult i64 %kept, %result_bytes: move, take
move:
  %result = getelementptr i8, ptr %results, i64 %kept
  %offset = field %result.place
  %size = field %result.stride
  %target = call ptr @part(ptr %result, ptr %run)
  %source = getelementptr i8, ptr %arena, i64 %offset
  call void @llvm.memcpy.p0.p0.i64(ptr %target, ptr %source, i64 %size, i1 false)
  %kept_next = add i64 %kept, $moved
  br label %keep
done:
  ret void
}"""

_PART = """\
define internal ptr @part(ptr %moved, ptr %run) nounwind {
entry:
  %start = field %moved.start
  %stride = field %moved.stride
  %index = field %moved.index
  %count_at = getelementptr i8, ptr %run, i64 %index
  %count = load i64, ptr %count_at
  %bytes = mul i64 %count, %stride
  %found = getelementptr i8, ptr %start, i64 %bytes
  ret ptr %found
}"""


def side_by_side_ir() -> str:
    """Return the module of the function `side_by_side`."""
    module = Module()
    module.declare("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
    structures = {"job": JOB, "run": RUN, "moved": MOVED, "entry_of": MOVED, "result": MOVED}
    for part in (_PART, _SIDE_BY_SIDE):
        text = written_out(part, structures)
        text = text.replace("$moved", str(8 * len(MOVED))).replace("$run", str(8 * len(RUN)))
        module.functions.append(text)
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
        self._threads, self._estimate = memory.threads, estimate
        self._tables = np.tile(table, (self._threads, 1))
        steps = np.arange(self._threads, dtype=np.uint64)
        self._tables[:, 0] += steps * np.uint64(program.arena.nbytes)
        self._tables[:, 1] += steps * table[2]
        self._job = np.zeros(len(JOB), np.uint64)
        self._set(
            function=function,
            tables=self._tables.ctypes.data,
            table_bytes=self._tables.strides[0],
            area_bytes=memory.feed_bytes,
        )
        self._states: tuple[Mapping[str, Spread], list[Words]] = {}, []
        """The states of the last runs, and their words: a population has many, always the same."""
        self._pointed: tuple[object, ...] = ()
        """The owners of the memory that the job points to."""
        self.library = load_by_key(
            module_key("side_by_side"), lambda: (side_by_side_ir(),), ("side_by_side",), host()
        )
        self._calls: dict[int, Callable[[int], None]] = {}
        """The calls of so many runs; each chooses its threads by what it measured."""

    def call(self, work: SideBySide) -> Call | None:
        """Return the call that makes these runs, or None if an array cannot be used as it is."""
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
        return partial(self._calls[count], count)

    def prepared(self, work: SideBySide) -> Array:
        """Return the job of these runs."""
        if work.states is not self._states[0]:
            self._states = work.states, list(self._moved("state", work.states))
        entries = np.array([*self._states[1], *self._moved("feed", work.feeds)], np.uint64)
        results = [
            self._words(start_of(self._result(name)), spread)
            for name, spread in work.results.items()
        ]
        made, runs = np.array(results, np.uint64), _runs(work)
        self._pointed = entries, made, runs, work
        self._set(next=0, count=len(runs), runs=runs.ctypes.data)
        self._set(entries=entries.ctypes.data, entry_bytes=entries.nbytes)
        self._set(results=made.ctypes.data, result_bytes=made.nbytes)
        return self._job

    def _moved(self, space: str, parts: Mapping[str, Spread]) -> Iterator[Words]:
        """Yield a `MOVED` for each entry of the table that has a part in each run."""
        for name, spread in parts.items():
            place = self._entries.get((space, name))
            if place is not None:
                area = int(self._table[place]) if spread.by == "chosen" else 0
                yield self._words(8 * place, spread, area)

    def _words(self, place: int, spread: Spread, area: int = 0) -> Words:
        index = RUN["none" if area else spread.by][1]
        return place, spread.array.ctypes.data + spread.offset, spread.stride, index, area

    def _result(self, name: str) -> Buffer:
        return self._program.buffers[self._program.outputs[name]]

    def _set(self, **words: int) -> None:
        for name, value in words.items():
            self._job[WORDS.index(name)] = value


def _runs(work: SideBySide) -> Array:
    """Return a `RUN` for each run."""
    rows = work.rows
    first = np.cumsum(rows) - rows
    columns = {"rows": rows, "number": np.arange(len(rows)), "first": first, "state": work.numbers}
    if work.chosen is not None:
        columns["chosen"] = work.chosen.ctypes.data + work.chosen.itemsize * first
    found = np.zeros((len(rows), len(RUN)), np.uint64)
    for column, name in enumerate(RUN):
        found[:, column] = columns.get(name, 0)
    return found


def _is_plain(spread: Spread) -> bool:
    return spread.array.flags.c_contiguous and spread.array.flags.aligned
