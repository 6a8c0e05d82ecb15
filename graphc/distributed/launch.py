"""Start ranks by mpiexec."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from graphc.backends.native.usable_cores import VARIABLES, cores
from graphc.distributed.mpi import require
from graphc.errors import GraphError, RankError

BLAS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Left alone, NumPy of each rank would take all cores: three times slower on two ranks."""


class Launch:
    """So many ranks, on this machine or on those that a file names.

    RankError where there is no MPI, GraphError for a file of machines that is not there.
    """

    def __init__(self, ranks: int, hosts: str | None = None) -> None:
        require()
        self.ranks, self.hosts = ranks, hosts
        self._mpiexec = _mpiexec()
        if hosts is not None and not Path(hosts).is_file():
            raise GraphError(f"{hosts} does not exist", hint="a file with a machine a line")

    def run(self, words: Sequence[str]) -> int:
        """Run a command of graphc on all ranks; the exit status, 128 + 9 for a killed one."""
        hosts = [] if self.hosts is None else ["-hostfile", self.hosts]
        graphc = [sys.executable, "-m", "mpi4py", "-m", "graphc", *words]
        command = [self._mpiexec, *hosts, "-n", str(self.ranks), *graphc]
        process = subprocess.Popen(command, env=self._environment(os.environ))
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the ranks had it, too
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
        return status if status >= 0 else 128 - status

    def may_go_on(self, status: int) -> bool:
        """Whether it is a failure, rather than success, wrong usage, or an interrupt."""
        return status not in (0, 2, 130)

    def _environment(self, outer: Mapping[str, str]) -> dict[str, str]:
        """Threads for each rank from the cores of this machine, unless they are chosen."""
        threads = str(max(1, cores() // self.ranks))
        found = {**outer, "PYTHONUNBUFFERED": "1"}
        for name in (*(() if self.hosts else VARIABLES), *BLAS):
            found.setdefault(name, threads)
        return found


def _mpiexec() -> str:
    """The program beside this Python, as the wheels install it, or on the path."""
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
