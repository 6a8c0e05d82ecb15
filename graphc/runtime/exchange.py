"""The exchange of buckets as a program runs: sums over this rank's shards, then over ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc.backends.numpy.bind import Call
from graphc.distributed.communicator import Communicator, Request, Solo, wait
from graphc.distributed.tree import TreeSum, is_power_of_two, room
from graphc.errors import StateError
from graphc.loc import caller_loc
from graphc.memory import ALIGNMENT
from graphc.op import Array
from graphc.ops.exchange import Receive, Send
from graphc.plan import Instr, Plan
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace
from graphc.tensor_type import ITEMSIZE


class Pause:
    """In the place of a call: here a shard needs the sum over all of them to go on.

    It is where the sum is awaited.  What is sent, as soon as it is there, may come in another order
    in the program of the last shard, which has more to do.
    """

    def __init__(self, bucket: int, buffer: Array) -> None:
        self.bucket, self.buffer = bucket, buffer

    def __call__(self) -> None:
        """Shards that run in step stop here, and never call it."""
        raise AssertionError("a shard that needs others cannot run alone")


HOLDS = "shard"
"""The program whose sums are held back for the shards after it."""


class Exchange:
    """What an executor adds up over shards.

    A rank runs its `lanes` shards one after the other.  Their sums are added like the digits of a
    binary counter that is counted up, so that the order is that of a balanced tree; the last
    shard's program sends what is then complete.
    """

    def __init__(self, communicator: Communicator, lanes: int) -> None:
        self.communicator, self.lanes = communicator, lanes
        self.lane = lanes - 1
        """The shard that runs, as this rank counts them."""
        self.seconds = 0.0
        """What starting exchanges, pushing them on and waiting for them has taken, in all."""
        self._held: dict[int, list[Array]] = {}
        self._scratch: dict[int, Array] = {}
        self.workspaces: list[Workspace] = []
        """Memory for all shards of a rank but the last, where they run in step."""
        self._totals: frozenset[int] = frozenset()
        """The buckets that a shard needs the sum of to go on."""
        self._complete: set[int] = set()
        """The buckets of which all shards of this rank but the last have held their sums."""
        self._early: dict[int, Array] = {}
        """What the last shard sent before: shards that run in step are not all at one place."""
        self._under_way: dict[int, Request] = {}
        self._ordered = is_power_of_two(communicator.size)

    def prepare(self, plan: Plan, state: State) -> None:
        """Make the memory for the buckets of a step."""
        held = plan.programs[HOLDS].instrs if HOLDS in plan.programs else ()
        self._totals = frozenset(_bucket(instr) for instr in held if instr.kind == "receive")
        for _ in range(workspaces(plan) - 1):
            threads = plan.recipe.threads
            self.workspaces.append(Workspace(plan.programs, plan.batch, state, threads))
        found = sorted(buckets(plan), key=lambda bucket: bucket.number)
        self.communicator.expect([bucket.nbytes for bucket in found])
        for bucket in buckets(plan):
            levels, room = bucket.held(plan.lanes), bucket.room(plan.ranks)
            made = [np.zeros(bucket.elements, bucket.dtype) for _ in range(levels)]
            self._held[bucket.number] = made
            self._scratch[bucket.number] = np.zeros(room, bucket.dtype)

    def calls(self, program: str, instr: Instr, arrays: Sequence[Array]) -> tuple[Call, ...]:
        """The calls of an instruction whose values are these arrays."""
        if _bucket(instr) in self._totals:
            awaits = instr.kind == "receive"
            return (Pause(_bucket(instr), joined(arrays)),) if awaits else ()
        if instr.kind == "receive":
            return (partial(self._receive, _bucket(instr)),)
        way = self._hold if program == HOLDS else self._send
        return (partial(way, _bucket(instr), joined(arrays)),)

    @property
    def nbytes(self) -> int:
        """The memory of sums held back, and of what comes from other ranks."""
        held = sum(array.nbytes for arrays in self._held.values() for array in arrays)
        return (
            held
            + sum(array.nbytes for array in self._scratch.values())
            + sum(workspace.nbytes for workspace in self.workspaces)
        )

    def poke(self) -> None:
        """Push on what is under way."""
        if self._under_way:
            start = perf_counter()
            for request in self._under_way.values():
                request.test()
            self.seconds += perf_counter() - start

    def total(self, pauses: Sequence[Pause]) -> None:
        """The sum over all shards in the places of those of this rank, which are all there."""
        for self.lane, pause in enumerate(pauses):
            way = self._send if self.lane == self.lanes - 1 else self._hold
            way(pause.bucket, pause.buffer)
        self._receive(pauses[-1].bucket)
        for pause in pauses[:-1]:
            np.copyto(pause.buffer, pauses[-1].buffer)

    def drop(self) -> None:
        """Forget what a run that failed had under way."""
        self._under_way.clear()
        self._complete.clear()
        self._early.clear()

    def _hold(self, bucket: int, buffer: Array) -> None:
        level = self._added(bucket, buffer)
        np.copyto(self._held[bucket][level], buffer)
        if self.lane == self.lanes - 2:
            self._complete.add(bucket)
            if bucket in self._early:
                lane, self.lane = self.lane, self.lanes - 1
                self._send(bucket, self._early.pop(bucket))
                self.lane = lane

    def _send(self, bucket: int, buffer: Array) -> None:
        if self.lanes > 1 and bucket not in self._complete:
            self._early[bucket] = buffer
            return
        self._complete.discard(bucket)
        self._added(bucket, buffer)
        start = perf_counter()
        comm = self.communicator
        if comm.size > 1:
            if self._ordered:
                self._under_way[bucket] = TreeSum(comm, buffer, self._scratch[bucket], bucket)
            else:
                self._under_way[bucket] = comm.total(buffer, bucket)
        self.seconds += perf_counter() - start

    def _added(self, bucket: int, buffer: Array) -> int:
        """Add to the buffer the sums that it completes; on which level it stands then."""
        level = 0
        while self.lane >> level & 1:
            np.add(self._held[bucket][level], buffer, out=buffer)
            level += 1
        return level

    def _receive(self, bucket: int) -> None:
        assert bucket not in self._early, "the other shards of this rank are done before"
        start = perf_counter()
        request: Any = self._under_way.get(bucket)
        if request is not None:
            wait(request, self.communicator.limit)
            del self._under_way[bucket]
        self.seconds += perf_counter() - start


def made_exchange(plan: Plan, communicator: Communicator | None, state: State) -> Exchange | None:
    """The exchange of a plan with shards; StateError for a communicator of other ranks."""
    ranks = plan.ranks
    size = 1 if communicator is None else communicator.size
    if size != ranks:
        raise StateError(
            f"the plan is for {ranks} rank{'s' if ranks > 1 else ''}, the communicator has {size}",
            loc=caller_loc(),
            hint="gc.compile(net, ..., ranks=n) and gc.Executor(plan, communicator=c) go together",
        )
    if plan.shards is None:
        return None
    exchange = Exchange(communicator or Solo(), plan.lanes)
    exchange.prepare(plan, state)
    return exchange


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is sent in one piece: so many elements, those between its values included."""

    number: int
    elements: int
    dtype: str

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return self.elements * ITEMSIZE[self.dtype]

    def held(self, lanes: int) -> int:
        """How many sums of shards wait for another at a time."""
        return (lanes - 1).bit_length()

    def room(self, ranks: int) -> int:
        """The elements of scratch that the sum over ranks needs."""
        tree = ranks > 1 and is_power_of_two(ranks)
        return room(self.elements, ITEMSIZE[self.dtype]) if tree else 0


def buckets(plan: Plan) -> Iterator[Bucket]:
    """The buckets of a plan's step, in the order in which they are sent."""
    programs = (plan.programs[name] for name in ("step", "accumulate") if name in plan.programs)
    for program in programs:
        for instr in program.instrs:
            if instr.kind == "send":
                first, last = (program.buffers[name] for name in (instr.outs[0], instr.outs[-1]))
                nbytes = last.offset + last.type.nbytes(1) - first.offset
                dtype = first.type.dtype
                yield Bucket(_bucket(instr), nbytes // ITEMSIZE[dtype], dtype)


def workspaces(plan: Plan) -> int:
    """How many an executor needs: one for each shard of a rank where they run in step."""
    cut = plan.recipe.sharding
    return 1 if cut is None or not cut.sync_batchnorm else cut.lanes


def exchange_bytes(plan: Plan) -> int:
    """What the exchange of a plan allocates."""
    if plan.shards is None:
        return 0
    lanes, ranks = plan.lanes, plan.ranks
    return sum(b.nbytes * b.held(lanes) + b.room(ranks) * ITEMSIZE[b.dtype] for b in buckets(plan))


def _bucket(instr: Instr) -> int:
    assert isinstance(instr.op, (Send, Receive))
    return instr.op.bucket


def joined(arrays: Sequence[Array]) -> Array:
    """One flat view from the first of several arrays to the end of the last."""
    first, last = arrays[0], arrays[-1]
    start, end = _address(first), _address(last) + last.nbytes
    assert start % ALIGNMENT == 0, "buckets start where slots do"
    return as_strided(first.reshape(-1), ((end - start) // first.itemsize,), (first.itemsize,))


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
