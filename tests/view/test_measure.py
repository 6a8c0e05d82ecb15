"""The loop of the peak, and instructions run alone, compute what they say; nothing is timed."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native import target
from graphc.backends.native.backend import CHAINS, NativeBackend, fma_loop
from graphc.backends.native.libraries import load
from graphc.compiler.plan import Plan, program_name
from graphc.ir.tensor_type import N
from graphc.view import measure
from graphc.view.measure import Instructions, Peak

native = pytest.mark.needs("native")
BACKENDS = ["numpy", pytest.param("native", marks=native)]
ROWS = 6


@pytest.mark.needs("native")
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_the_loop_multiplies_and_adds_in_every_lane(rounds: int) -> None:
    lanes = target.host().bits // 32
    library = load(fma_loop(lanes), ("fma_loop",), target.host())
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(library.address("fma_loop"))
    sink = np.zeros(CHAINS * lanes + 1, np.float32)
    call(sink.ctypes.data, rounds)
    expected = 1.0
    for _ in range(rounds):
        expected = expected * 0.5 + 1
    assert (sink[:-1] == expected).all()
    assert sink[-1] == 0  # nothing is written behind the sums


def test_the_nearer_limit_counts() -> None:
    limits = Peak(threads=1, flops=100.0, bytes=10.0)
    assert limits.seconds(flops=200, nbytes=10) == 2
    assert limits.seconds(flops=200, nbytes=30) == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_rates_are_positive_numbers(threads: int) -> None:
    found = measure.measure_peak(threads, seconds=0.001)
    assert found.threads == threads
    assert 0 < found.flops < np.inf
    assert 0 < found.bytes < np.inf


def test_without_llvm_numpy_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeBackend, "missing", lambda self: "llvmlite is missing")
    assert measure.how() == "NumPy's matrix product"
    assert 0 < measure.flop_rate(1, 0.001) < np.inf


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
    monkeypatch.setattr(measure, "process_time", process.process_time)
    monkeypatch.setattr(measure, "sleep", process.sleep)
    measure.await_idle()
    assert process.slept == pytest.approx(waited)
