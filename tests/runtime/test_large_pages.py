"""Advice on large pages: given for large memory, harmless everywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.runtime.state import LARGE, advise_large_pages


@pytest.mark.parametrize("nbytes", [0, 1, 4096, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE])
@pytest.mark.parametrize("offset", [0, 1, 64])
def test_the_bytes_stay(nbytes: int, offset: int) -> None:
    block = np.full(nbytes + offset, 7, np.uint8)[offset:]
    advise_large_pages(block)
    assert (block == 7).all()


def test_other_systems_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    advise_large_pages(np.zeros(2 * LARGE, np.uint8))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_linux_knows_of_the_advice() -> None:
    block = np.zeros(8 * LARGE, np.uint8)
    advise_large_pages(block)
    middle, inside = block.ctypes.data + block.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= middle < end
        elif inside and first == "VmFlags:":
            assert "hg" in line.split()
            return
    pytest.skip("this system tells nothing of its memory")
