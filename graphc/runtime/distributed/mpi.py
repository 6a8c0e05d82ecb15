"""Ranks as processes, by MPI; only this module imports mpi4py."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.backends.native.usable_cores import VARIABLES, cores
from graphc.base.errors import RankError
from graphc.ir.op import Array
from graphc.runtime.distributed.communicator import LIMIT, Communicator, Request, Solo, Swap, wait
from graphc.runtime.distributed.shared import SharedMemory
from graphc.runtime.distributed.watcher import Watcher, in_step

_LAUNCHED = ("PMI_RANK", "PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID")
"""The variables that MPICH, Open MPI, Intel MPI and Slurm set for a process that is a rank."""

_TASKS = "SLURM_STEP_NUM_TASKS"
"""The variable for the number of tasks that srun has started with this one.  A batch script, which
has SLURM_NTASKS, too, and programs that run in it without srun, do not have this variable.
"""
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", _TASKS)
"""The variables in which launchers write the number of ranks; the first one set is the innermost.
"""


def launched() -> bool:
    """Return whether this process was started as one of several ranks."""
    return any(name in os.environ for name in _LAUNCHED) or _started() > 1


def _started() -> int:
    """Return how many ranks the launcher says that it has started."""
    said = (os.environ.get(name, "") for name in _SIZES)
    return next((int(text) for text in said if text.isdecimal()), 1)


def require() -> Any:
    """Import and return mpi4py.MPI; raise RankError, with a hint to install it, if that fails."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise RankError(
            f"ranks need mpi4py and an MPI library: {str(error).splitlines()[0]}",
            hint="pip install 'graphc-nn[mpi]', which is mpi4py and mpich; on a cluster, pip "
            "install mpi4py beside the MPI that is there",
        ) from None
    return MPI


class Mpi:
    """The communicator of the ranks of MPI's world."""

    def __init__(self, limit: float = LIMIT) -> None:
        self._watcher = Watcher(limit)
        with self._watcher.waiting():  # importing mpi4py.MPI waits for the other ranks
            self._mpi = require()
            self._world = self._mpi.COMM_WORLD.Dup()
            self._world.Set_errhandler(self._mpi.ERRORS_RETURN)
            self._node = self._world.Split_type(self._mpi.COMM_TYPE_SHARED)
        self.rank, self.size = int(self._world.rank), int(self._world.size)
        self.limit = limit
        self._shared: SharedMemory | None = None
        if self.size == 1 < _started():
            raise _apart(self._mpi.get_vendor()[0])

    def expect(self, sizes: Sequence[int]) -> None:
        """Allocate memory that the ranks of this machine share, if there are several."""
        if self._node.size > 1:
            with self._watcher.waiting():
                if self._shared is not None:
                    self._shared.free()
                members = self._node.allgather(self.rank)
                self._shared = SharedMemory(self._mpi, self._node, members, sizes)

    def swap(self, partner: int, out: Array, into: Array, tag: int) -> Swap:
        """Exchange arrays by shared memory if possible, else by a simultaneous send and receive."""
        shared = self._shared
        if shared is not None and shared.serves(partner, tag, max(out.nbytes, into.nbytes)):
            turn = shared.next_turn(partner, tag)
            mine = shared.place(self.rank, partner, tag, turn)
            np.copyto(mine[: out.nbytes].view(out.dtype), out)
            shared.sync()
            theirs = shared.place(partner, self.rank, tag, turn)[: into.nbytes].view(into.dtype)
            byte = np.zeros(2, np.uint8)
            return _Near(self._started(partner, byte[:1], byte[1:], tag), theirs, shared)
        return _Requests(*self._started(partner, out, into, tag), into)

    def _started(self, partner: int, out: Array, into: Array, tag: int) -> tuple[Any, Any, str]:
        world, kind = self._world, self._mpi.BYTE
        requests = [
            world.Irecv([into, into.nbytes, kind], partner, tag),
            world.Isend([out, out.nbytes, kind], partner, tag),
        ]
        return self._mpi, requests, f"rank {partner}"

    def total(self, buffer: Array, tag: int) -> Request:
        """Start MPI's own sum, whose order of terms the library chooses."""
        request = self._world.Iallreduce(self._mpi.IN_PLACE, buffer, self._mpi.SUM)
        return _Requests(self._mpi, [request], "one of the ranks")

    def broadcast(self, buffer: Array) -> None:
        """Copy rank 0's bytes into the buffers of all ranks."""
        request = self._world.Ibcast([buffer, buffer.nbytes, self._mpi.BYTE], 0)
        wait(_Requests(self._mpi, [request], "rank 0"), self.limit)

    def gather(self, thing: Any) -> list[Any]:
        """Return the objects of all ranks, sent as pickled bytes, on every rank."""
        from pickle import dumps, loads

        data = np.frombuffer(dumps(thing), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        self._gathered(np.array([len(data)], np.int64), sizes, None)
        all_data = np.empty(sizes.sum(), np.uint8)
        self._gathered(data, all_data, sizes)
        ends = np.cumsum(sizes)
        return [loads(all_data[e - n : e].tobytes()) for e, n in zip(ends, sizes, strict=True)]

    def _gathered(self, mine: Array, into: Array, sizes: Array | None) -> None:
        if sizes is None:
            request = self._world.Iallgather(mine, into)
        else:
            request = self._world.Iallgatherv(mine, [into, sizes])
        wait(_Requests(self._mpi, [request], "one of the ranks"), self.limit)


def _apart(library: str) -> RankError:
    """Return the error for ranks that do not see each other, as each would train alone."""
    count = _started()
    if in_step(os.environ):
        way = "pmix" if library == "Open MPI" else "pmi2"
        return RankError(
            f"Slurm has started {count} tasks, but each is alone for MPI ({library}), and would "
            "train by itself",
            hint=f"srun --mpi={way} python -m mpi4py -m graphc train ...; `srun --mpi=list` shows "
            "what this Slurm has",
        )
    return RankError(
        f"{count} ranks were started, but each is alone for MPI ({library}), and would train by "
        "itself: their launcher is that of another MPI library",
        hint=f"start them with the mpiexec of {library}, or install mpi4py for the library of the "
        "launcher",
    )


class _Requests:
    """Several requests of MPI as one, done when all of them are."""

    def __init__(self, mpi: Any, requests: list[Any], who: str, into: Array | None = None) -> None:
        self._mpi, self._requests, self._who, self._into = mpi, requests, who, into

    @property
    def arrived(self) -> Array:
        """The buffer that was received into."""
        assert self._into is not None
        return self._into

    def test(self) -> bool:
        """Return whether all requests are done; raise RankError if the partner is gone."""
        try:
            return bool(self._mpi.Request.Testall(self._requests))
        except self._mpi.Exception as error:
            raise RankError(f"{self._who} is gone: {error}") from None

    def who(self) -> str:
        """Return the partner's name."""
        return self._who


class _Near(_Requests):
    """A request for a message in memory that the partner shares."""

    def __init__(self, started: tuple[Any, Any, str], theirs: Array, shared: SharedMemory) -> None:
        super().__init__(*started, theirs)
        self._shared, self._seen = shared, False

    def test(self) -> bool:
        """Return whether the partner has reported that the message is written."""
        if not self._seen and super().test():
            self._shared.sync()
            self._seen = True
        return self._seen


def joined(limit: float = LIMIT) -> Communicator:
    """Return the communicator of the ranks that this process was started with; Solo if alone."""
    if not launched():
        return Solo()
    world = Mpi(limit)
    return world if world.size > 1 else Solo(limit)


def threads_of_rank(ranks: Communicator) -> int | None:
    """Return a rank's fair share of the cores that ranks of one machine use together; None for all.

    Where the launcher has bound each rank to cores of its own, they are all the rank's.
    """
    if ranks.size == 1 or any(os.environ.get(name) for name in VARIABLES):
        return None
    mine = socket.gethostname(), tuple(sorted(os.sched_getaffinity(0)))
    together = ranks.gather(mine).count(mine)
    return max(1, cores() // together)
