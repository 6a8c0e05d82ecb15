"""What each step of a loop reads is packed before the first one: the bits of steps that pack it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native import pack_panels, panels, scan
from graphc.runtime import workspace
from graphc.runtime.state import block
from passes.set_precision import Precision
from tests.backends.native.gemm_function import Array
from tests.check.validation.faults import Fault, plant

pytestmark = pytest.mark.needs("native")

ROWS, STEPS = 40, 4
WIDTHS: dict[Precision, int] = {"float32": 11, "bf16": 9, "bf16_blocks": 20}
"""The units of the loops: the last panels and blocks are not whole, nor are all pairs."""
GUARD = 4096


@pytest.fixture(autouse=True)
def all_are_packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small factors of float32 are packed, too; code is not found in the cache."""
    monkeypatch.setattr(panels, "NEAR", 0)
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "packed"))


def net(width: int) -> gc.Net:
    net = gc.Net("loops")
    x = net.input("x", (gc.N, STEPS, 3))
    first, _ = gc.lstm(x, width, name="first")
    last, _ = gc.gru(first, width, name="last")
    net.output("last", last)
    net.loss("loss", gc.mean(last * last))
    return net


def feed(seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(ROWS, STEPS, 3)).astype("float32")


def executor(to: Precision, threads: int) -> gc.Executor:
    plan = gc.compile(
        net(WIDTHS[to]),
        batch=ROWS,
        optimizer=gc.SGD(lr=1.0),
        backend="native",
        threads=threads,
        precision={"*": to},
    )
    return gc.Executor(plan, seed=0)


def results(to: Precision, threads: int = 1) -> Iterator[bytes]:
    """Yield what training leaves, and the outputs for many and for few rows."""
    ex = executor(to, threads)
    for seed in range(3):
        ex.step(x=feed(seed))
        for rows in (ROWS, 18, 2):  # 18 rows are few for the second thread
            yield ex.forward(x=feed(3)[:rows])["last"].tobytes()
    yield ex.parameters.flat().tobytes()
    yield gc.freeze(ex, batch=ROWS).forward(x=feed(3))["last"].tobytes()


@cache
def packed_at_each_step(to: Precision) -> list[bytes]:
    """The same results of steps that pack what they read."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setenv("GRAPHC_CACHE", folder)
        for module in (panels, scan):
            patch.setattr(module, "packed_once", lambda *_: {})
        return list(results(to))


@pytest.mark.parametrize("to", WIDTHS)
def test_the_bits_are_those_of_steps_that_pack(to: Precision, four_threads: object) -> None:
    wanted = packed_at_each_step(to)
    assert list(results(to, threads=1)) == wanted
    assert list(results(to, threads=4)) == wanted


@pytest.mark.parametrize("to", WIDTHS)
def test_packing_once_for_all_calls_is_found(
    to: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training writes the weights between two calls: their panels are made at each."""
    where = f"{pack_panels.__name__}:emit_packing"
    right = "many = f.less(0 if frame.tiles_only else FEW, f.sub(last, first))"
    wrong = "many = f.value('icmp eq i64 0, ' + f.value('load i64, ptr %panels'))"
    wanted = packed_at_each_step(to)
    plant(Fault("", lambda: net(1), where, right, wrong, ""), monkeypatch)
    assert list(results(to)) != wanted


@pytest.mark.parametrize("to", WIDTHS)
def test_panels_lie_in_the_scratch_that_is_counted(
    to: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Array] = []

    def guarded(nbytes: int) -> Array:
        memory = block(nbytes + GUARD)
        memory[nbytes:] = 0xA5
        ends.append(memory[nbytes:])
        return memory[:nbytes]

    monkeypatch.setattr(workspace, "block", guarded)
    ex = executor(to, threads=1)
    ex.step(x=feed(0))
    assert ends and all((end == 0xA5).all() for end in ends)
    width, item = WIDTHS[to], 4 if to == "float32" else 2
    assert ex.plan.memory.scratch > 4 * width * 32 * item, "a factor, with whole units of rows"


def test_only_what_is_read_far_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small factor of float32 is read where it lies; nothing is packed for few rows."""
    monkeypatch.setattr(panels, "NEAR", 1 << 18)
    plan = gc.compile(net(64), batch=ROWS, backend="native", threads=1)
    few = gc.compile(net(300), batch=3, backend="native", threads=1)
    far = gc.compile(net(300), batch=ROWS, backend="native", threads=1)
    assert plan.memory.scratch < 1 << 18
    assert few.memory.scratch < 4 * 300 * 300 * 4 <= far.memory.scratch
