"""Ranks killed at random moments: nothing is lost for longer than since the last checkpoint.

pytest -m campaign -n 0 tests/runtime/distributed/test_kills.py
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from graphc.files.container import unpack
from tests.runtime.distributed.launched import (
    bits,
    environment,
    graphc,
    prepare,
    ranks_of,
    train_words,
)

pytestmark = pytest.mark.needs("MPI")
EVERY = 5


def last_step(run: Path) -> int:
    """Of the newest checkpoint, which is whole, as all of them are; 0 where there is none."""
    steps = [0]
    for path in run.glob("step-*.gc"):
        with suppress(FileNotFoundError):  # the run goes on meanwhile
            unpack(path.read_bytes())
            match = re.search(r"\d+", path.name)
            steps.append(int(match[0]) if match else 0)
    return max(steps)


def campaign(folder: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill a rank at random moments until enough were; how many, in how many runs."""
    rng = random.Random(seed)
    prepare(folder)
    options = ("--deterministic", "--checkpoint", str(EVERY))
    assert graphc(folder, *train_words("alone", "--deterministic")).status == 0
    straight = bits(folder / "alone/net.gc")
    killed = runs = 0
    while killed < kills:
        runs += 1
        out = f"run-{runs}"
        words = ("launch", "-n", "2", "--max-restarts", "1000", *train_words(out, *options))
        command = [sys.executable, "-m", "graphc", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=folder, env=environment(), **quiet)
        before = 0
        while process.poll() is None and killed < kills:
            time.sleep(rng.uniform(0, 1.5))
            ranks = ranks_of(folder)
            if len(ranks) == 2:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(ranks), signal.SIGKILL)
                    killed += 1
            reached = last_step(folder / out / "checkpoints")
            assert reached >= before
            before = reached
        assert process.wait(120) == 0
        assert bits(folder / out / "net.gc") == straight
    return killed, runs


@pytest.mark.campaign
def test_a_hundred_ranks_killed_at_random_moments(tmp_path: Path) -> None:
    killed, _ = campaign(tmp_path, kills=100, seed=1)
    assert killed == 100
