"""What cannot fit in memory is counted and refused, with what would fit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.base import memory
from graphc.base.usable_cores import groups


def plan(batch: int = 4) -> gc.Plan:
    net = gc.Net("net")
    net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 3)), 2)))
    return gc.compile(net, batch=batch, optimizer=gc.SGD(lr=0.1), backend="numpy")


def fitting(error: pytest.ExceptionInfo[gc.OutOfMemoryError], pattern: str) -> int:
    found = re.search(pattern, str(error.value))
    assert found is not None, error.value
    return int(found[1].replace(",", ""))


def test_a_population_names_how_many_members_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    small = plan()
    monkeypatch.setattr(memory, "most_bytes", lambda: 40_000)
    with pytest.raises(gc.OutOfMemoryError, match="1,000,000,000 members would take") as error:
        gc.Population(small, members=10**9)
    fit = fitting(error, r"enough for ([\d,]+)")
    assert len(gc.Population(small, members=fit)) == fit > 1
    with pytest.raises(gc.OutOfMemoryError):
        gc.Population(small, members=fit + 1)


def test_a_replay_buffer_names_how_many_rows_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "most_bytes", lambda: 1200)
    with pytest.raises(gc.OutOfMemoryError, match="have 1,200 bytes, enough for 100"):
        gc.ReplayBuffer(plan(), 10**15)  # a row is 3 numbers of 4 bytes
    buffer = gc.ReplayBuffer(plan(), 100)
    buffer.add(x=np.ones((100, 3)))
    for draw in (buffer.draw, buffer.sample):
        with pytest.raises(gc.OutOfMemoryError, match="draw fewer"):
            draw(10**15)
    assert len(buffer.sample(50)["x"]) == 50


def test_a_plan_names_the_batch_that_fits() -> None:
    with pytest.raises(gc.OutOfMemoryError, match="not enough memory for this plan") as error:
        plan(10**20)
    fit = fitting(error, r"batch=(\d+) fits here")
    assert plan(fit).memory.total <= memory.most_bytes() < plan(fit + fit // 10).memory.total
    with pytest.raises(gc.OutOfMemoryError, match=r"batch=\d+ fits here"):
        gc.Executor(plan(2 * fit))


@pytest.mark.parametrize(
    ("version", "file", "entry"),
    [(2, "memory.max", "0::/a/b"), (1, "memory.limit_in_bytes", "4:memory:/a/b")],
)
def test_limits_of_groups_hold(
    version: int, file: str, entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / ("memory" if version == 1 else "")
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / file).write_text("max\n" if version == 2 else f"{2**63}\n")
    (root / "a" / file).write_text("123456\n")
    found = groups(entry, tmp_path, "memory")
    assert {folder for folder, _ in found} == {root / "a" / "b", root / "a"}
    monkeypatch.setattr(memory, "limiting_groups", lambda of: found)
    assert memory.most_bytes() == 123456
