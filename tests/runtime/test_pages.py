"""Pages of mapped files do not stay with the process once their rows have been read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.runtime.pages import Pages

WIDTH = 64
MEGABYTE = 2**20

pytestmark = pytest.mark.needs("Linux")


def resident(path: Path) -> int:
    """The bytes of a file that are in this process's memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.partition(" ")[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def wide() -> gc.Executor:
    net = gc.Net("wide")
    x, y = net.input("x", (gc.N, WIDTH)), net.input("y", gc.N, dtype="int64")
    scores = net.output("scores", gc.affine(x, 2))
    net.loss("loss", gc.softmax_loss(scores, y))
    return gc.Executor(gc.compile(net, batch=1000))


def file_of(path: Path, megabytes: int) -> np.ndarray:
    """An array of float32 whose rows are not all the same."""
    rows = megabytes * MEGABYTE // (4 * WIDTH)
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, WIDTH))
    array[:: rows // 64] = np.random.default_rng(0).normal(size=array[:: rows // 64].shape)
    array.flush()
    del array
    return np.load(path, mmap_mode="r")


def check(path: Path, megabytes: int) -> None:
    x = file_of(path, megabytes)
    y = np.zeros(len(x), np.int32)
    ex = wide()
    in_memory = np.array(x)
    assert resident(path) > 0.9 * x.nbytes  # so much it would be
    found = ex.predict(x)
    assert resident(path) < MEGABYTE
    np.testing.assert_array_equal(found, ex.predict(in_memory))
    for view in (np.asarray(x), x[::-1], x[5:]):
        ex.predict(view)
        assert resident(path) < MEGABYTE
    peaks = []

    class Watched(gc.Executor):
        def forward(self, feeds=None, /, **options):
            found = super().forward(feeds, **options)
            peaks.append(resident(path))
            return found

    watched = Watched(gc.compile(gc.Net.of(ex.plan.declared), batch=8000), state=ex.state)
    assert watched.evaluate(x, y) == pytest.approx(ex.evaluate(in_memory, y), rel=1e-5)
    assert resident(path) < MEGABYTE
    assert max(peaks) < 24 * MEGABYTE < x.nbytes


@pytest.mark.slow
def test_pages_that_were_read_are_given_back(tmp_path: Path) -> None:
    check(tmp_path / "x.npy", 40)


@pytest.mark.slow
def test_half_a_gigabyte(tmp_path: Path) -> None:
    check(tmp_path / "x.npy", 512)


def test_the_command_line_gives_them_back_too(tmp_path: Path, capsys) -> None:
    path = tmp_path / "x.npy"
    kept = file_of(path, 40)  # a mapping of its own, which the command does not use
    gc.save(tmp_path / "wide.gc", wide())
    out = tmp_path / "out.npy"
    argv = ["predict", str(tmp_path / "wide.gc"), "--data", str(path), "--out", str(out)]
    assert main(argv) == 0
    assert resident(path) < MEGABYTE
    np.testing.assert_array_equal(np.load(out), gc.load(tmp_path / "wide.gc").predict(kept))


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_what_is_written_to_is_left_alone(tmp_path: Path, mode: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((100, 4), np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode=mode)
    x[:] = 7
    pages = Pages([x, np.asarray(x)[3:]])
    pages.give_back()
    assert (x == 7).all()
    assert not pages._files
    shared = Pages([np.load(tmp_path / "x.npy", mmap_mode="r").reshape(-1)[2:], np.zeros(3), 1.0])
    assert len(shared._files) == 1
