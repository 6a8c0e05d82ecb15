"""Ranks that fail under MPICH, Open MPI and Slurm end the job, and the cause is said.

No rank waits for --timeout here, which is 300 s: watchers and launchers end the job.  Trials at
random moments, with their times:

pytest -m campaign -n 0 -s tests/runtime/distributed/test_launchers.py
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.runtime.distributed import slurm
from tests.runtime.distributed.launched import (
    bits,
    environment,
    graphc,
    prepare,
    ranks_of,
    running,
    train_words,
)
from tests.runtime.distributed.launchers import NAMES, Launcher, launcher

TRIALS = 20
SOON = 10.0
"""Seconds after which a job has to have ended, on a machine that is not overloaded."""
LONG = ("--epochs", "100000", "--checkpoint", "50")

CAUSES = {
    "kill": r"Killed \(signal 9\)|signal 9 \(Killed\)|rank \d \(process \d+ on .*\) was killed",
    "stop": r"rank \d \(process \d+ on .*\) is stopped, for example by SIGSTOP",
    "raise": r"ZeroDivisionError: planted",
}


@pytest.fixture(scope="module", params=NAMES)
def started(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    with launcher(request.param) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_two_ranks_have_the_bits_of_one(started: Launcher, folder: Path) -> None:
    assert graphc(folder, *train_words("alone", "--deterministic")).status == 0
    said = folder / "said"
    process = started.start(folder, *train_words("two", "--deterministic"), said=said)
    assert process.wait(100) == 0, said.read_text()
    assert bits(folder / "two/net.gc") == bits(folder / "alone/net.gc")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "rank", "step"), [("kill", 0, 25), ("stop", 1, 25), ("raise", 1, 0)]
)
def test_a_rank_that_fails_ends_the_job(
    fault: str, rank: int, step: int, started: Launcher, folder: Path
) -> None:
    said = folder / "said"
    planted = f"{fault} {rank} {step} {folder / 'marker'}"
    words = train_words("out", *LONG)
    process = started.start(folder, *words, said=said, PLANTED=planted)
    assert _status(process, folder) not in (0, None), said.read_text()
    assert re.search(CAUSES[fault], said.read_text()), said.read_text()
    assert not running(folder)


@pytest.mark.slow
def test_a_rank_that_is_stopped_before_it_has_a_watcher(started: Launcher, folder: Path) -> None:
    said = folder / "said"
    process = started.start(folder, *train_words("out", *LONG), said=said)
    rank = _some_rank(folder, process, random.Random(0))
    os.kill(rank, signal.SIGSTOP)
    assert _status(process, folder) not in (0, None), said.read_text()
    assert re.search(CAUSES["stop"], said.read_text()), said.read_text()


@pytest.mark.campaign
@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
@pytest.mark.parametrize("fault", CAUSES)
def test_trials(fault: str, early: bool, started: Launcher, tmp_path: Path) -> None:
    rng = random.Random(f"{fault} {early}")
    times = []
    for number in range(TRIALS):
        folder = tmp_path / str(number)
        folder.mkdir()
        prepare(folder)
        times.append(_trial(fault, early, started, folder, rng))
    ended = sum(seconds < SOON for seconds in times)
    sys.stdout.write(f"\n{ended} of {TRIALS} within {SOON:g} s, at most {max(times):.1f} s: ")
    assert ended == TRIALS, times


def _trial(fault: str, early: bool, started: Launcher, folder: Path, rng: random.Random) -> float:
    """Let a rank fail at a random moment before or after the first step; when all had ended.

    By the documented command: srun with --kill-on-bad-exit, which a rank needs that is killed while
    Python starts.
    """
    said, marker = folder / "said", folder / "marker"
    words = train_words("out", *LONG)
    if fault == "raise":
        step = 0 if early else rng.randint(1, 200)
        planted = f"raise {rng.randint(0, 1)} {step} {marker}"
    else:
        planted = f"mark 0 1 {marker}"
    documented = {"PLANTED": planted, "SLURM_KILL_BAD_EXIT": "1"}
    process = started.start(folder, *words, said=said, **documented)
    if fault == "raise":
        _await(marker.exists, process)
    else:
        rank = _some_rank(folder, process, rng)
        if not early:
            _await(marker.exists, process)
        time.sleep(rng.uniform(0, 1))
        assert not (early and marker.exists()), "this machine is faster than the trial"
        os.kill(rank, {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[fault])
    start = time.monotonic()
    assert _status(process, folder) not in (0, None), said.read_text()
    seconds = time.monotonic() - start
    causes = f"{CAUSES[fault]}|task \\d: Killed" if fault == "kill" else CAUSES[fault]
    assert re.search(causes, said.read_text()), said.read_text()
    return seconds


def _some_rank(folder: Path, process: subprocess.Popen[bytes], rng: random.Random) -> int:
    """One of two ranks, as soon as both are there."""
    _await(lambda: len(ranks_of(folder)) == 2, process)
    return rng.choice(ranks_of(folder))


def _await(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not ready():
        assert process.poll() is None
        time.sleep(0.01)


def _status(process: subprocess.Popen[bytes], folder: Path) -> int | None:
    """The exit status, None where the job does not end, whose processes are then killed."""
    try:
        return process.wait(100)
    except subprocess.TimeoutExpired:
        for rank in ranks_of(folder):
            os.kill(rank, signal.SIGKILL)
        process.kill()
        return None


ALONE = f"{sys.executable} -m graphc {' '.join(train_words('out', '--epochs', '1'))}"


@pytest.mark.slow
@pytest.mark.needs("Slurm")
def test_slurm_without_pmi_is_refused_and_serial_jobs_are_not(folder: Path) -> None:
    script = folder / "job"
    script.write_text(f"#!/bin/sh\n{ALONE}\nsrun -n 1 {ALONE}\n")
    with slurm.slurm() as configuration:
        env = environment(SLURM_CONF=str(configuration))

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)

        refused = run("srun", "-n", "2", "--mpi=none", *ALONE.split())
        assert refused.returncode == 1
        assert "Slurm has started 2 tasks, but each is alone for MPI (MPICH)" in refused.stderr
        assert "hint: srun --mpi=pmi2 python -m mpi4py -m graphc train" in refused.stderr
        assert not (folder / "out").exists()
        for words in (("salloc", "-n", "2", *ALONE.split()), ("srun", "-n", "1", *ALONE.split())):
            alone = run(*words)
            assert alone.returncode == 0, alone.stderr
        said = run("sbatch", "--wait", "-n", "2", "-o", "said", str(script))
        assert said.returncode == 0, (folder / "said").read_text()
        assert (folder / "said").read_text().count("wrote") == 2
