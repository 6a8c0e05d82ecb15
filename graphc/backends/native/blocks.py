"""Blocks of rows side by side: each thread takes whole blocks, in an arena of its own.

    one after the other    all threads share each kernel, and wait for each other between kernels
    side by side           a thread runs all kernels of its block, and waits for none

The bits are the same, since a row's do not depend on the rows that run with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphc.backends.layout import start_of
from graphc.backends.native import pool
from graphc.backends.native.cache_keys import module_key
from graphc.backends.native.ir import Module
from graphc.backends.native.libraries import load_by_key
from graphc.backends.native.structures import structure, written_out
from graphc.backends.native.target import host
from graphc.ir.op import Array
from graphc.kernels.program import Program

JOB = structure(
    "i64 next",  # the first block that no thread has taken
    "i64 count",  # of the blocks
    "ptr function",  # of the program
    "i64 rows",  # of a block
    "ptr tables",  # of the program's memory: one for each thread
    "i64 table_bytes",
    "ptr feeds",  # a `MOVED` for each: its entry's place in a table, and where its rows start
    "i64 feed_bytes",  # of all of these
    "ptr results",  # a `MOVED` for each: its place in the arena, and where its rows are gathered
    "i64 result_bytes",
)
WORDS = tuple(JOB)
MOVED = structure("i64 place", "ptr rows", "i64 block")
"""An array of the whole batch; `block` is the bytes of a block of it."""

# Takes blocks until none is left.  It is a program of one epoch, and of as many parts as threads.
_BLOCKS = """\
define void @blocks(ptr %job, i64 %n, i64 %tid, i64 %threads, i64 %epoch) nounwind {
entry:
  %count = field %job.count
  %function = field %job.function
  %block_rows = field %job.rows
  %tables = field %job.tables
  %table_bytes = field %job.table_bytes
  %feeds = field %job.feeds
  %feed_bytes = field %job.feed_bytes
  %results = field %job.results
  %result_bytes = field %job.result_bytes
  %far = mul i64 %tid, %table_bytes
  %table = getelementptr i8, ptr %tables, i64 %far
  %arena = load ptr, ptr %table
  br label %take
take:
  %number = atomicrmw add ptr %job, i64 1 monotonic
  if ult i64 %number, %count: feed, done
feed:
  %at = phi i64 [ 0, %take ], [ %at_next, %set ]
  if ult i64 %at, %feed_bytes: set, run
set:
  %fed = getelementptr i8, ptr %feeds, i64 %at
  %place = field %fed.place
  %rows = field %fed.rows
  %block = field %fed.block
  %skipped = mul i64 %number, %block
  %start = getelementptr i8, ptr %rows, i64 %skipped
  %entry_at = getelementptr i8, ptr %table, i64 %place
  store ptr %start, ptr %entry_at
  %at_next = add i64 %at, $moved
  br label %feed
run:
  call void %function(ptr %table, i64 %block_rows, i64 0, i64 1, i64 -1)
  br label %gather
gather:
  %got = phi i64 [ 0, %run ], [ %got_next, %copy ]
  if ult i64 %got, %result_bytes: copy, take
copy:
  %result = getelementptr i8, ptr %results, i64 %got
  %offset = field %result.place
  %gathered = field %result.rows
  %bytes = field %result.block
  %before = mul i64 %number, %bytes
  %to = getelementptr i8, ptr %gathered, i64 %before
  %from = getelementptr i8, ptr %arena, i64 %offset
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  %got_next = add i64 %got, $moved
  br label %gather
done:
  ret void
}"""


def blocks_ir() -> str:
    """Return the module of the function `blocks`."""
    module = Module()
    module.declare("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
    structures = {"job": JOB, "fed": MOVED, "result": MOVED}
    text = written_out(_BLOCKS, structures)
    module.functions.append(text.replace("$moved", str(8 * len(MOVED))))
    return module.text()


class Blocks:
    """The blocks of a program that is one function, whose address is `function`.

    `table` has the addresses on which a run of one block works, `entries` the places of feeds in
    it.  The memory has an arena and a scratch for each thread, one after the other.  `estimate` is
    the microseconds of a block on one thread, roughly.
    """

    def __init__(
        self,
        program: Program,
        function: int,
        table: Array,
        entries: Mapping[str, int],
        threads: int,
        estimate: float,
    ) -> None:
        self._program, self._entries = program, entries
        self._threads, self._estimate = threads, estimate
        self._tables = np.tile(table, (threads, 1))
        steps = np.arange(threads, dtype=np.uint64)
        self._tables[:, 0] += steps * np.uint64(program.arena.nbytes)
        self._tables[:, 1] += steps * table[2]
        self._job = np.zeros(len(JOB), np.uint64)
        self._set(
            function=function,
            rows=program.capacity,
            tables=self._tables.ctypes.data,
            table_bytes=self._tables.strides[0],
        )
        self._moved: tuple[Array, ...] = ()
        """The arrays that the job points to."""
        self.library = load_by_key(
            module_key("blocks"), lambda: (blocks_ir(),), ("blocks",), host()
        )
        self._runs: dict[int, Callable[[int], None]] = {}
        """The calls that run so many blocks; each chooses its threads by what it measured."""

    def run(self, feeds: Mapping[str, Array], results: Mapping[str, Array], n: int) -> int:
        """Run the first blocks, as many as make equal shares, and return their rows.

        Return 0 if there are not enough rows, or if a feed cannot be read where it lies.
        """
        rows = self._program.capacity
        count = n // rows // self._threads * self._threads
        read = {name: feeds[name] for name in self._entries if name in feeds}
        if not count or not all(map(_is_plain, read.values())):
            return 0
        job = self.prepared(read, results, count)
        if count not in self._runs:
            time = count * self._estimate
            self._runs[count] = pool.bind(
                self.library, "blocks", job, threads=self._threads, estimate=time
            )
        self._runs[count](count * rows)
        return count * rows

    def prepared(
        self, feeds: Mapping[str, Array], results: Mapping[str, Array], count: int
    ) -> Array:
        """Return the job of so many blocks, on these feeds and results."""
        buffers, outputs = self._program.buffers, self._program.outputs
        fed = [self._words(name, 8 * self._entries[name], feeds[name]) for name in feeds]
        values = {name: buffers[outputs[name]] for name in results}
        made = [self._words(v.name, start_of(v), results[name]) for name, v in values.items()]
        reads, writes = self._moved = np.array(fed, np.uint64), np.array(made, np.uint64)
        self._set(next=0, count=count)
        self._set(feeds=reads.ctypes.data, feed_bytes=reads.nbytes)
        self._set(results=writes.ctypes.data, result_bytes=writes.nbytes)
        return self._job

    def _words(self, name: str, place: int, array: Array) -> tuple[int, int, int]:
        """Return a `MOVED` of a buffer and the array of the whole batch."""
        type = self._program.buffers[name].type
        return place, array.ctypes.data, type.nbytes(self._program.capacity)

    def _set(self, **words: int) -> None:
        for name, value in words.items():
            self._job[WORDS.index(name)] = value


def _is_plain(array: Array) -> bool:
    return array.flags.c_contiguous and array.flags.aligned
