"""Who is watched, what counts as stopped, and which ranks are refused as they are apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

import graphc as gc
from graphc.runtime.distributed import mpi, watcher
from graphc.runtime.distributed.communicator import wait

pytestmark = pytest.mark.needs("Linux")

SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
"""What a batch script of two tasks has, and what runs in it without srun."""
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the variables of a launcher, and no others."""

    def environment(**variables: str) -> None:
        for name in list(os.environ):
            if name.startswith(("SLURM_", "PMI", "OMPI_", "MPI_")):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return environment


@pytest.mark.parametrize(
    ("variables", "launched"),
    [
        ({}, False),
        (BATCH, False),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, False),
        (STEP, True),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, True),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, True),
    ],
)
def test_serial_jobs_of_slurm_are_not_ranks(
    variables: dict[str, str], launched: bool, launcher: Any
) -> None:
    launcher(**variables)
    assert mpi.launched() == launched


@pytest.mark.parametrize(
    ("variables", "in_step"),
    [
        ({}, False),
        (BATCH, False),
        (STEP, True),
        ({**STEP, "PMI_SIZE": "2"}, True),
        ({**STEP, "PMI_SIZE": "8"}, False),  # an mpiexec whose proxies srun has started
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", "PMI_SIZE": "2"}, False),
        ({**STEP, "OMPI_COMM_WORLD_SIZE": "2"}, False),
    ],
)
def test_only_ranks_that_srun_started_end_a_step(variables: dict[str, str], in_step: bool) -> None:
    assert watcher.in_step(variables) == in_step


@pytest.mark.parametrize(
    ("variables", "library", "told", "hint"),
    [
        (STEP, "MPICH", "Slurm has started 2 tasks", "srun --mpi=pmi2 "),
        (STEP, "Open MPI", "Slurm has started 2 tasks", "srun --mpi=pmix "),
        ({**STEP, "PMI_SIZE": "2"}, "Open MPI", "Slurm has started 2 tasks", "srun --mpi=pmix "),
        ({"PMI_SIZE": "4"}, "Open MPI", "4 ranks were started", "the mpiexec of Open MPI"),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, "MPICH", "3 ranks were started", "the mpiexec of MPICH"),
    ],
)
def test_ranks_that_mpi_does_not_know_of_are_refused(
    variables: dict[str, str],
    library: str,
    told: str,
    hint: str,
    launcher: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher(**variables)
    alone = SimpleNamespace(rank=0, size=1, Set_errhandler=lambda _: None)
    alone.Dup = alone.Split_type = lambda *_: alone
    fake = SimpleNamespace(
        COMM_WORLD=alone, ERRORS_RETURN=0, COMM_TYPE_SHARED=0, get_vendor=lambda: (library, (1,))
    )
    monkeypatch.setattr(mpi, "require", lambda: fake)
    monkeypatch.setattr(mpi, "Watcher", Nobody)
    with pytest.raises(gc.RankError) as caught:
        mpi.joined()
    assert told in caught.value.sentence and "train by itself" in caught.value.sentence
    assert hint in caught.value.hint


def test_one_rank_is_no_mistake(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mpiexec -n 1` in a step of two tasks: the inner launcher counts."""
    launcher(**STEP, PMI_SIZE="1", PMI_RANK="0")
    assert mpi._started() == 1


class Nobody:
    def __init__(self, limit: float) -> None:
        """Start nothing."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        yield


def test_a_process_is_stopped_while_the_system_says_so() -> None:
    child = subprocess.Popen(SLEEP)
    try:
        rank = watcher.Rank(child.pid)
        assert [rank.looks_stopped() for _ in range(3)] == [0, 0, 0]
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert [rank.looks_stopped() for _ in range(4)] == [0, 1, 2, 3]
        os.kill(child.pid, signal.SIGCONT)
        os.waitid(os.P_PID, child.pid, os.WCONTINUED)
        assert rank.looks_stopped() == 0
    finally:
        child.kill()
        child.wait()
    assert watcher.Rank(child.pid).looks_stopped() == 0


def test_a_process_that_works_between_looks_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under cpulimit, which stops a process again and again."""
    times = iter(range(100))
    monkeypatch.setattr(watcher, "_status", lambda pid: ("T", str(next(times)), "0", "0"))
    rank = watcher.Rank(1)
    assert [rank.looks_stopped() for _ in range(20)] == [0] * 20


@pytest.mark.needs("list of children")
def test_the_next_rank_is_another_rank_of_the_same_launcher() -> None:
    """Three children with ranks, and one without: a ring of the three."""
    env = {k: v for k, v in os.environ.items() if k not in watcher.RANKS}
    ranks = [subprocess.Popen(SLEEP, env={**env, "PMI_RANK": str(i)}) for i in range(3)]
    other = subprocess.Popen(SLEEP, env=env)
    try:
        pids = sorted(process.pid for process in ranks)
        for here, after in zip(pids, [*pids[1:], pids[0]], strict=True):
            found = watcher._next_rank(watcher.Rank(here))
            assert found is not None and found.pid == after
    finally:
        for process in (*ranks, other):
            process.kill()
            process.wait()


class _Scripted:
    """A rank of which a watcher sees so much, and then its end."""

    pid, number = 1, "3"

    def __init__(self, said: list[bytes], stopped: list[int]) -> None:
        self.said, self.stopped = said, stopped
        self.ended: list[str] = []

    def described(self) -> str:
        return "rank 3"

    def looks_stopped(self) -> int:
        return self.stopped.pop(0) if self.stopped else 0

    def end(self, why: str) -> None:
        self.ended.append(why)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a watcher does with a scripted rank: why it was ended, and what is said of it."""

    def run(said: list[bytes], stopped: list[int], limit: float = 5.0) -> tuple[Any, list[str]]:
        rank, reasons = _Scripted(said, stopped), list[str]()
        monkeypatch.setattr(os, "getppid", lambda: rank.pid if rank.said else 0)
        monkeypatch.setattr(watcher, "_messages", lambda: rank.said.pop(0))
        monkeypatch.setattr(watcher, "_next_rank", lambda _: None)
        monkeypatch.setattr(watcher, "_end_step", reasons.append)
        monkeypatch.setattr(watcher.time, "sleep", lambda _: None)
        watcher.watch(rank, limit)  # type: ignore[arg-type]
        return rank.ended, reasons

    return run


def test_a_watcher_ends_what_is_stopped_waits_too_long_or_dies(watched: Any) -> None:
    nothing = b""
    assert watched([nothing] * 9, list(range(9)))[0] == [watcher._IS_STOPPED]
    assert watched([b"("] + [nothing] * 20, [])[0] == [
        "has waited for the other ranks for 5 s",
    ]
    assert watched([nothing] * 9, []) == ([], ["rank 3 was killed or has crashed"])


def test_a_watcher_leaves_what_goes_on(watched: Any) -> None:
    nothing = b""
    said = [b"(", *[nothing] * 5, b")", *[nothing] * 20, b"()", b"()(", nothing, b")", b"."]
    assert watched(said, [0, 1, 2, 3, 0, 1, 2, 3] + [0] * 30) == ([], [])


def test_time_in_which_nobody_looked_is_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole job was suspended for an hour."""
    clock = iter([0.0, 0.5, 3600.0, 3600.5, 3601.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    answers = iter([False, False, False, False, True])
    request = SimpleNamespace(test=lambda: next(answers), who=lambda: "rank 1")
    wait(request, 5.0)
