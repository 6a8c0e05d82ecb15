"""What starts ranks: MPICH's and Open MPI's mpiexec, and Slurm's srun, where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.extras import lacks, needs, program
from tests.runtime.distributed import launched, slurm
from tests.runtime.distributed.launched import environment

NAMES = ("MPICH", "Open MPI", "Slurm", "Slurm, Open MPI")
OPEN_MPI = {
    "MPI4PY_MPIABI": "openmpi",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_btl": "self,sm",
}


@dataclass(frozen=True)
class Launcher:
    """How two ranks are started."""

    words: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)

    def start(self, folder: Path, *words: str, said: Path, **more: str) -> subprocess.Popen[bytes]:
        """Start `graphc` on two ranks; what it says goes to a file."""
        command = [*self.words, sys.executable, "-m", "mpi4py", "-m", "graphc", *words]
        env = environment(GRAPHC_THREADS="1", **self.variables, **more)
        with said.open("wb") as file:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )


@contextmanager
def launcher(name: str) -> Iterator[Launcher]:
    """Prepare a launcher by its name; skip where it is not installed."""
    open_mpi = OPEN_MPI if "Open MPI" in name else {}
    needs("MPI")
    if open_mpi:
        _need_open_mpi()
    if not name.startswith("Slurm"):
        program = _open_mpiexec() if open_mpi else launched.MPIEXEC
        yield Launcher((program or "", "-n", "2"), open_mpi)
        return
    needs("Slurm")
    with slurm.slurm() as configuration:
        words = ("srun", "-n", "2", f"--mpi={'pmix' if open_mpi else 'pmi2'}")
        variables = {**open_mpi, "SLURM_CONF": str(configuration)}
        yield Launcher(words, variables)


def _open_mpiexec() -> str | None:
    return program("mpiexec.openmpi") or program("mpirun.openmpi")


def _need_open_mpi() -> None:
    """Skip where mpi4py finds no library of Open MPI, or there is no launcher."""
    if _open_mpiexec() is None:
        lacks("Open MPI is not installed: no mpiexec.openmpi")
    look = "from mpi4py import MPI; print(MPI.Get_library_version())"
    env = {**os.environ, **OPEN_MPI}
    said = subprocess.run([sys.executable, "-c", look], env=env, capture_output=True, text=True)
    if not said.stdout.startswith("Open MPI"):
        reason = (said.stderr or said.stdout).strip().splitlines()
        lacks(f"this mpi4py has no Open MPI: {reason[-1] if reason else 'no word'}")
