"""Two ranks are worth their cores, and as fast as predicted.  Run with `-m bench -n 0`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.runtime.distributed.launched import MPIEXEC, ROOT, environment

pytestmark = [pytest.mark.bench, pytest.mark.needs("MPI")]


def printed(*words: str) -> str:
    assert MPIEXEC is not None
    command = [MPIEXEC, "-n", "2", sys.executable, "-m", "mpi4py", "-m", *words]
    run = subprocess.run(
        command, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True
    )
    print(run.stdout)
    return run.stdout


def test_two_ranks_are_at_least_1_6_times_as_fast_as_one_process() -> None:
    out = printed("tests.tools.benchmarks.distributed", "mnist", "wide")
    found = [float(number) for number in re.findall(r"([\d.]+) times as fast", out)]
    assert len(found) == 2
    assert min(found) >= 1.6


@pytest.mark.parametrize("network", [(), ("--bandwidth", "4Gb/s", "--latency", "500us")])
def test_steps_take_what_is_predicted(network: tuple[str, ...]) -> None:
    out = printed("tests.tools.benchmarks.scaling", *network)
    found = [int(number) for number in re.findall(r"([+-]\d+)%", out)]
    assert len(found) == 6
    assert max(map(abs, found)) <= 15
