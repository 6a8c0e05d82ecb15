"""Ranks as processes, started by mpiexec, and their messages by MPI; only this imports mpi4py.

Between ranks of one machine, messages go by memory that they share: a rank copies its message to
its own part of the memory and sends a byte by MPI; its partner reads the message there.  MPI's own
messages take longer, as they move in small pieces that both sides have to advance; but messages
larger than the caches are faster that way, since the pieces stay in the caches.

Each pair of partners has two places in the memory of each for every bucket, used in turns.  A
place is reused only two messages later: by then the partner has answered the message
between, which it does after it has read the first.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import dumps, loads
from typing import Any

import numpy as np

from graphc.base.errors import GraphError, RankError
from graphc.base.usable_cores import VARIABLES, cores
from graphc.compiler.sharding import SMALL
from graphc.ir.op import Array
from graphc.ir.tensor_type import align
from graphc.runtime.distributed.communicator import LIMIT, Communicator, Request, Solo, Swap, wait
from graphc.runtime.distributed.watcher import Watcher, in_step

LARGEST = 4 * 2**20
"""The most bytes of a message by shared memory; larger ones use MPI itself."""


class SharedMemory:
    """The memory of this rank and of the others on its machine, for buckets of `sizes` bytes."""

    def __init__(self, mpi: Any, node: Any, members: Sequence[int], sizes: Sequence[int]) -> None:
        """Allocate the memory; `members` are the world's ranks of the processes of `node`."""
        self._place = {rank: i for i, rank in enumerate(members)}
        self._offsets: list[int] = []
        end = 0
        for size in sizes:
            self._offsets.append(end)
            end += 2 * _part(size) * len(members)
        self._sizes = list(sizes)
        self._window = mpi.Win.Allocate_shared(end, 1, comm=node)
        self._window.Lock_all()
        self._memory: list[Array] = []
        for i in range(len(members)):
            data, _ = self._window.Shared_query(i)
            self._memory.append(np.frombuffer(data, np.uint8))
        self._turns: dict[tuple[int, int], int] = {}

    def serves(self, partner: int, tag: int, nbytes: int) -> bool:
        """Return whether a message of bucket `tag` to a partner uses shared memory."""
        known = partner in self._place and tag < len(self._sizes)
        return known and SMALL < nbytes <= _part(self._sizes[tag])

    def place(self, owner: int, other: int, tag: int, turn: int) -> Array:
        """Return the memory where the owner leaves its message to the other rank."""
        part = _part(self._sizes[tag])
        start = self._offsets[tag] + (2 * self._place[other] + turn) * part
        return self._memory[self._place[owner]][start : start + part]

    def next_turn(self, partner: int, tag: int) -> int:
        """Return the index, 0 or 1, of the place to use next, and switch to the other one."""
        turn = self._turns.get((partner, tag), 0)
        self._turns[partner, tag] = 1 - turn
        return turn

    def sync(self) -> None:
        """Make earlier writes visible to other ranks, and theirs visible here, after a message."""
        self._window.Sync()

    def free(self) -> None:
        """Free the memory, on all ranks of the machine together."""
        self._memory.clear()
        self._window.Unlock_all()
        self._window.Free()


def _part(size: int) -> int:
    """Return the bytes of a bucket's larger half, its largest message; 0 if they are too many."""
    half = align(size // 2 + 8)
    return half if half <= LARGEST else 0


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
    texts = (os.environ.get(name, "") for name in _SIZES)
    return next((int(text) for text in texts if text.isdecimal()), 1)


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
            # Errors become exceptions, instead of ending the process at once.
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
        self._finish(self._world.Ibcast([buffer, buffer.nbytes, self._mpi.BYTE], 0), "rank 0")

    def gather(self, thing: Any) -> list[Any]:
        """Return the objects of all ranks, sent as pickled bytes, on every rank."""
        data = np.frombuffer(dumps(thing), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        self._finish(self._world.Iallgather(np.array([len(data)], np.int64), sizes))
        all_data = np.empty(sizes.sum(), np.uint8)
        self._finish(self._world.Iallgatherv(data, [all_data, sizes]))
        ends = np.cumsum(sizes)
        return [loads(all_data[e - n : e].tobytes()) for e, n in zip(ends, sizes, strict=True)]

    def _finish(self, request: Any, who: str = "one of the ranks") -> None:
        wait(_Requests(self._mpi, [request], who), self.limit)


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

    A rank that the launcher has bound to cores uses all of those.
    """
    if ranks.size == 1 or any(os.environ.get(name) for name in VARIABLES):
        return None
    mine = socket.gethostname(), tuple(sorted(os.sched_getaffinity(0)))
    return max(1, cores() // ranks.gather(mine).count(mine))


BLAS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The variables that limit BLAS threads; unset, NumPy of each rank takes all cores, which made two
ranks three times slower."""


class Launch:
    """A launcher of ranks, on this machine or on the machines that the file `hosts` names.

    Raise RankError if there is no MPI, GraphError if `hosts` is not a file.
    """

    def __init__(self, ranks: int, hosts: str | None = None) -> None:
        require()
        self.ranks, self.hosts = ranks, hosts
        self._mpiexec = _mpiexec()
        if hosts is not None and not Path(hosts).is_file():
            raise GraphError(f"{hosts} does not exist", hint="a file with a machine a line")

    def run(self, words: Sequence[str]) -> int:
        """Run `python` with these words on all ranks; return the exit status, 137 if killed."""
        hosts = [] if self.hosts is None else ["-hostfile", self.hosts]
        # mpi4py as the main module ends all ranks if one of them raises.
        python = [sys.executable, "-m", "mpi4py", *words]
        command = [self._mpiexec, *hosts, "-n", str(self.ranks), *python]
        process = subprocess.Popen(command, env=self._environment(os.environ))
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the ranks received it, too
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
        return status if status >= 0 else 128 - status

    def may_go_on(self, status: int) -> bool:
        """Return whether a new start may help: not after success, wrong usage or an interrupt."""
        return status not in (0, 2, 130)

    def _environment(self, outer: Mapping[str, str]) -> dict[str, str]:
        """Return a rank's environment, with its share of this machine's cores unless it is set."""
        threads = str(max(1, cores() // self.ranks))
        # Otherwise what a rank prints into the launcher's pipe would appear only at its end.
        found = {**outer, "PYTHONUNBUFFERED": "1"}
        for name in (*(() if self.hosts else VARIABLES), *BLAS):
            found.setdefault(name, threads)
        return found


def _mpiexec() -> str:
    """Return the path of mpiexec beside this Python, where the wheels install it, or on PATH."""
    beside = str(Path(sys.executable).parent)
    path = os.pathsep.join((beside, os.environ.get("PATH", "")))
    found = shutil.which("mpiexec", path=path) or shutil.which("mpirun", path=path)
    if found is None:
        raise RankError(
            "there is no mpiexec to start ranks with",
            hint="pip install 'graphc-nn[mpi]', which is mpi4py and mpich, or load the MPI of the "
            "cluster",
        )
    return found
