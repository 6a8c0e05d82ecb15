"""Starts ranks by mpiexec."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from graphc.backends.native.usable_cores import VARIABLES, cores
from graphc.base.errors import GraphError, RankError
from graphc.runtime.distributed.mpi import require

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
        """Run a graphc command on all ranks; return its exit status, 128 + 9 if it was killed."""
        hosts = [] if self.hosts is None else ["-hostfile", self.hosts]
        graphc = [sys.executable, "-m", "mpi4py", "-m", "graphc", *words]
        command = [self._mpiexec, *hosts, "-n", str(self.ranks), *graphc]
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
        """Return whether `status` is a failure, not success, wrong usage, or an interrupt."""
        return status not in (0, 2, 130)

    def _environment(self, outer: Mapping[str, str]) -> dict[str, str]:
        """Return a rank's environment, with its share of this machine's cores unless it is set."""
        threads = str(max(1, cores() // self.ranks))
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
