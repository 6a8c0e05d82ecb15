"""The exchange of buckets while a program runs: sums over this rank's shards, then over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import perf_counter

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc.backends.backend import Call
from graphc.base.arguments import is_power_of_two
from graphc.compiler.plan import Plan
from graphc.compiler.sharding import bucket_of, buckets
from graphc.ir.op import Array
from graphc.ir.tensor_type import ALIGNMENT
from graphc.kernels.program import Instr
from graphc.runtime.distributed.communicator import Communicator, Request, TreeSum, wait

SHARD = "shard"
"""The name of the program of all shards of a rank but the last; it updates nothing."""


class Pause:
    """The place in a shard's calls where it needs the sum over all shards to continue.

    It is the place of the receive.  The sends, each of which is made once its value is computed,
    may be in another order in the program of the last shard, which does more.
    """

    def __init__(self, bucket: int, buffer: Array) -> None:
        self.bucket, self.buffer = bucket, buffer

    def __call__(self) -> None:
        """Raise AssertionError: shards that run in lockstep stop here, and never call it."""
        raise AssertionError("a shard that needs others cannot run alone")


class Exchange:
    """The sums over shards of an executor, and the link of its programs.

    A rank runs its `lanes` shards one after the other.  Their sums are added like the carries of
    a binary counter, in the order of a balanced tree; the last shard's program sends the sum.
    """

    def __init__(self, plan: Plan, communicator: Communicator) -> None:
        """Allocate the memory for the buckets of a step, on all ranks together."""
        self.communicator, self.lanes = communicator, plan.lanes
        self.lane = plan.lanes - 1
        """The index, on this rank, of the shard that runs."""
        self.seconds = 0.0
        """The seconds spent so far to start, advance and await exchanges."""
        held = plan.programs[SHARD].instrs if SHARD in plan.programs else ()
        self._totals = frozenset(bucket_of(instr) for instr in held if instr.kind == "receive")
        """The buckets whose sum a shard needs to continue."""
        self._complete: set[int] = set()
        """The buckets whose sum over all shards of this rank but the last is complete."""
        self._early: dict[int, Array] = {}
        """The buckets that the last shard, in lockstep with the others, sent before them."""
        self._requests: dict[int, Request] = {}
        self._ordered = is_power_of_two(communicator.size)
        found = sorted(buckets(plan), key=lambda bucket: bucket.number)  # tags are these numbers
        communicator.expect([bucket.nbytes for bucket in found])
        self._kept = {
            b.number: [np.zeros(b.elements, b.dtype) for _ in range(b.held(plan.lanes))]
            for b in found
        }
        self._scratch = {b.number: np.zeros(b.room(plan.ranks), b.dtype) for b in found}

    def calls(self, program: str, instr: Instr, arrays: Sequence[Array]) -> tuple[Call, ...]:
        """Return the calls of an instruction that sends or receives these arrays."""
        bucket, awaits = bucket_of(instr), instr.kind == "receive"
        if bucket in self._totals:
            return (Pause(bucket, joined(arrays)),) if awaits else ()
        if awaits:
            return (partial(self._receive, bucket),)
        exchange = self._keep if program == SHARD else self._send
        return (partial(exchange, bucket, joined(arrays)),)

    @property
    def nbytes(self) -> int:
        """The bytes of the sums that are kept, and of scratch for the sums of other ranks."""
        arrays = [*self._scratch.values(), *(a for held in self._kept.values() for a in held)]
        return sum(array.nbytes for array in arrays)

    def poke(self) -> None:
        """Advance the requests in progress."""
        if self._requests:
            start = perf_counter()
            for request in self._requests.values():
                request.test()
            self.seconds += perf_counter() - start

    def total(self, pauses: Sequence[Pause]) -> None:
        """Replace the ready buffers of all of this rank's shards by the sum over all shards."""
        for self.lane, pause in enumerate(pauses):
            exchange = self._send if self.lane == self.lanes - 1 else self._keep
            exchange(pause.bucket, pause.buffer)
        self._receive(pauses[-1].bucket)
        for pause in pauses[:-1]:
            np.copyto(pause.buffer, pauses[-1].buffer)

    def drop(self) -> None:
        """Forget the requests of a run that failed."""
        self._requests.clear()
        self._complete.clear()
        self._early.clear()

    def _keep(self, bucket: int, buffer: Array) -> None:
        """Keep a shard's sum of a bucket; send that of the last shard if it came too early."""
        level = self._add_kept(bucket, buffer)
        np.copyto(self._kept[bucket][level], buffer)
        if self.lane == self.lanes - 2:
            self._complete.add(bucket)
            if bucket in self._early:
                lane, self.lane = self.lane, self.lanes - 1
                self._send(bucket, self._early.pop(bucket))
                self.lane = lane

    def _send(self, bucket: int, buffer: Array) -> None:
        """Start the sum over ranks of a bucket, once all shards of this rank have added theirs."""
        if self.lanes > 1 and bucket not in self._complete:
            self._early[bucket] = buffer
            return
        self._complete.discard(bucket)
        self._add_kept(bucket, buffer)
        comm = self.communicator
        if comm.size > 1:
            start = perf_counter()
            self._requests[bucket] = (
                TreeSum(comm, buffer, self._scratch[bucket], bucket)
                if self._ordered
                else comm.total(buffer, bucket)
            )
            self.seconds += perf_counter() - start

    def _add_kept(self, bucket: int, buffer: Array) -> int:
        """Add to the buffer the kept sums that it completes; return its level in the counter."""
        level = 0
        while self.lane >> level & 1:
            np.add(self._kept[bucket][level], buffer, out=buffer)
            level += 1
        return level

    def _receive(self, bucket: int) -> None:
        assert bucket not in self._early, "the other shards of this rank are done before"
        request = self._requests.get(bucket)
        if request is not None:
            start = perf_counter()
            wait(request, self.communicator.limit)
            self.seconds += perf_counter() - start
            del self._requests[bucket]


def joined(arrays: Sequence[Array]) -> Array:
    """Return one flat view from the first of several arrays to the end of the last."""
    first, last = arrays[0], arrays[-1]
    start, end = first.ctypes.data, last.ctypes.data + last.nbytes
    assert start % ALIGNMENT == 0, "buckets start where slots do"
    return as_strided(first.reshape(-1), ((end - start) // first.itemsize,), (first.itemsize,))
