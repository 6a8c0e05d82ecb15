"""Instructions run one by one do what the whole program does; nothing is compared with a clock."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native.target import available
from graphc.compiler.plan import Plan, program_name
from graphc.ir.tensor_type import N
from graphc.view import times
from graphc.view.times import Instructions

native = pytest.mark.skipif(available() is not None, reason="no native backend here")
BACKENDS = ["numpy", pytest.param("native", marks=native)]
ROWS = 6


def plan(backend: str, optimizer: gc.SGD | None = None) -> Plan:
    net = gc.Net("small")
    x, y = net.input("x", (N, 5)), net.input("y", (N,), dtype="int64")
    h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(x, 7))), keep_prob=0.8)
    scores = gc.affine(h, 3, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return gc.compile(net, batch=ROWS, optimizer=optimizer, backend=backend)


def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((ROWS, 5)).astype("float32"), "y": rng.integers(0, 3, ROWS)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_pass_is_one_step(backend: str) -> None:
    made = plan(backend, gc.SGD(lr=0.1, momentum=0.9))
    instructions = Instructions(made, "step", feeds(), ROWS)
    ex = gc.Executor(made)
    instructions.run(0)
    ex.step(feeds())
    state = instructions._workspace._state
    for name, array in ex.snapshot().items():
        np.testing.assert_array_equal(state.arrays[name], array, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_instruction_but_barriers_has_a_time(backend: str) -> None:
    made = plan(backend, gc.SGD(lr=0.1))
    instructions = Instructions(made, "step", feeds(), ROWS)
    for _ in range(3):
        instructions.run(0)
    for instr, seconds in zip(made.programs["step"].instrs, instructions.medians, strict=True):
        assert (seconds > 0) is (instr.kind != "barrier")


def test_the_program_is_what_a_step_runs() -> None:
    assert program_name(plan("numpy")) == "infer"
    assert program_name(plan("numpy", gc.SGD(lr=0.1))) == "step"
    assert program_name(plan("numpy", gc.SGD(lr=0.1, accumulate=2))) == "accumulate"


class Process:
    """A process whose threads take a whole core for `busy` seconds of sleep."""

    def __init__(self, busy: float) -> None:
        self.busy, self.slept = busy, 0.0

    def process_time(self) -> float:
        return min(self.slept, self.busy)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.mark.parametrize(("busy", "waited"), [(0.0, 0.005), (0.1, 0.105), (9.0, 0.3)])
def test_it_waits_until_nothing_works_but_not_for_ever(
    busy: float, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(busy)
    monkeypatch.setattr(times, "process_time", process.process_time)
    monkeypatch.setattr(times, "sleep", process.sleep)
    times.await_idle()
    assert process.slept == pytest.approx(waited)
