"""Absurd sizes and counts, in a process of little memory: all work or are refused plainly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.needs("Linux")  # which counts the addresses and the memory that are taken
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_size_works_or_is_refused_in_words(every: int, tmp_path: Path) -> None:
    """Of the calls times the values: every seventh by default."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.absurd_sizes", str(every)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    *wrong, calls, memory = done.stdout.splitlines() or ["", ""]
    assert done.returncode == 0, done.stderr[-2000:]
    assert not wrong, "\n".join(wrong)
    assert int(calls.split()[0]) > 2000 // every
    assert int(memory.split()[0]) < 1 << 20, "it took more than 1 GB"
