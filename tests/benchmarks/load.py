"""Runs on as many threads as graphc chooses, beside other load.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m tests.benchmarks.load

runs each net on one thread and with the default in turns, beside no, one, two and four busy
processes, and in a process that also uses the pools of PyTorch and JAX (extra `peers`).  With
nothing beside, all cores for each run that is not too short are a third side.  Printed are ratios
of means and of 99th percentiles; times are of the side with one thread.

Then inference of one row is called back-to-back, and every 5 ms, beside ONNX Runtime, each side in
a process of its own.  `np.add` of 16 numbers is a third side: what a call costs after a pause,
whatever it does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any

import numpy as np

import graphc as gc
from graphc.base.usable_cores import cores
from tests.backends.native.shared_runs import shared_runs
from tests.benchmarks.compile_scale import LAYERS, declare

BUSY = 0, 1, 2, 4
PERIOD = 0.005
Run = Callable[[], object]
Side = Callable[[int | None], Run]
"""Compile for so many threads, None for the default; what it yields is one run."""


def mlp(widths: Sequence[int], batch: int) -> Side:
    """A training step of affine maps and relus."""
    net = gc.Net("mlp")
    h = net.input("x", (gc.N, widths[0]))
    for width in widths[1:-1]:
        h = gc.relu(gc.affine(h, width))
    scores = net.output("scores", gc.affine(h, widths[-1]))
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, widths[0]), np.float32)
    feeds = {"x": x, "y": rng.integers(0, widths[-1], batch)}
    return lambda threads: stepper(net, batch, threads, feeds)


def graph_of_ten_thousand() -> Side:
    """A step of about 10,000 nodes."""
    feeds = {"x": np.ones((4, 8), np.float32), "y": np.arange(4)}
    return lambda threads: stepper(declare(LAYERS[0]), 4, threads, feeds)


def stepper(net: gc.Net, batch: int, threads: int | None, feeds: dict[str, Any]) -> Run:
    optimizer = gc.SGD(lr=0.001, momentum=0.9)
    plan = gc.compile(net, batch=batch, optimizer=optimizer, threads=threads)
    ex = gc.Executor(plan, seed=0)
    return lambda: ex.step(feeds)


def resnet18() -> Side:
    """Inference of one image of 64 x 64 by ResNet-18 (He et al. 2016, arXiv:1512.03385)."""

    def conv(x: gc.Value, channels: int, kernel: int, stride: int) -> gc.Value:
        h = gc.conv2d(x, channels, kernel, stride, padding=kernel // 2, bias=False)
        return gc.batchnorm(h)

    net = gc.Net("resnet18")
    h = gc.relu(conv(net.input("x", (gc.N, 3, 64, 64)), 64, 7, 2))
    h = gc.max_pool(h, 3, 2, padding=1)
    for channels in (64, 128, 256, 512):
        for i in range(2):
            stride = 2 if channels > 64 and i == 0 else 1
            inner = conv(gc.relu(conv(h, channels, 3, stride)), channels, 3, 1)
            beside = h if h.shape == inner.shape else conv(h, channels, 1, stride)
            h = gc.relu(inner + beside)
    net.output("scores", gc.affine(gc.global_avg_pool(h), 1000))
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)

    def side(threads: int | None) -> Run:
        ex = gc.freeze(gc.Executor(gc.compile(net, batch=1, threads=threads), seed=0), batch=1)
        return lambda: ex.forward(x=image)

    return side


NETS: dict[str, Callable[[], Side]] = {
    "tiny": lambda: mlp([64, 64, 64, 10], 32),
    "mnist": lambda: mlp([784, 256, 128, 10], 128),
    "30 x 96": lambda: mlp([96] * 31 + [10], 32),
    "50 x 128": lambda: mlp([128] * 51 + [10], 64),
    "400 x 16": lambda: mlp([16] * 401 + [10], 16),
    "ResNet-18": resnet18,
    "10,000 nodes": graph_of_ten_thousand,
}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes beside this one that never rest."""
    loop = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(loop) for _ in range(count)]
    sleep(0.3)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def pools() -> Run:
    """A product by PyTorch and one by JAX, each by the threads of its own pool."""
    import jax
    import torch

    a = torch.ones(384, 384)
    b = jax.numpy.ones((384, 384))
    product = jax.jit(lambda x: x @ x)
    return lambda: (a @ a, product(b).block_until_ready())


def in_turns(sides: Sequence[Run], rounds: int, seconds: float, before: Run) -> list[list[float]]:
    """The seconds of all runs of each side; `before` is called before each run."""
    times: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        for side, found in zip(sides, times, strict=True):
            end = perf_counter() + seconds
            while True:
                before()
                start = perf_counter()
                side()
                now = perf_counter()
                if number:  # the first round is for learning
                    found.append(now - start)
                if now > end:
                    break
    return times


def compare(name: str, beside: str, rounds: int, seconds: float, before: Run) -> None:
    """Print a line about a net beside some load."""
    net = NETS[name]()
    sides = [net(1), net(None)]
    for side in sides:
        side()  # bound to the pool as it is for users
    with shared_runs(cores(), short=False) if beside == "0" else nullcontext():
        if beside == "0":
            sides.append(net(cores()))
            sides[-1]()
        one, default, *all_cores = in_turns(sides, rounds, seconds, before)
    mean = np.mean(default) / np.mean(one)
    late = np.percentile(default, 99) / np.percentile(one, 99)
    line = f"{name:<13} {beside:>6} {np.mean(one) * 1e6:10.1f} us {mean:7.3f} {late:7.2f}"
    if all_cores:
        best = min(np.median(one), np.median(all_cores[0]))
        line += f" {np.median(default) / best:7.3f} {np.median(all_cores[0]) / np.median(one):7.3f}"
    print(line, flush=True)


CONTROL_NETS = {"tiny": [64, 64, 64, 10], "mnist": [784, 256, 128, 10]}


def control_loop(side: str, name: str, seconds: float) -> None:
    """Print the median of calls back-to-back, and percentiles of calls every 5 ms, in us."""
    call = CONTROL[side](CONTROL_NETS[name])
    at_once = [_timed(call) for _ in range(4000)][2000:]
    times, due = [], perf_counter()
    end = due + seconds
    while due < end:
        due += PERIOD
        sleep(max(0.0, due - perf_counter()))
        times.append(_timed(call))
    found = [np.median(at_once), *np.percentile(times[len(times) // 10 :], [50, 99, 99.9])]
    print(" ".join(f"{value * 1e6:.1f}" for value in found))


def _timed(call: Run) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def frozen(widths: Sequence[int]) -> gc.Executor:
    net = gc.Net("mlp")
    h = net.input("x", (gc.N, widths[0]))
    for width in widths[1:-1]:
        h = gc.relu(gc.affine(h, width))
    net.output("scores", gc.affine(h, widths[-1]))
    return gc.freeze(gc.Executor(gc.compile(net, batch=1), seed=0), batch=1)


def row(columns: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((1, columns), np.float32)


def by_graphc(widths: Sequence[int]) -> Run:
    ex, x = frozen(widths), row(widths[0])
    return lambda: ex.forward(x=x)


def by_onnxruntime(widths: Sequence[int]) -> Run:
    import onnxruntime

    from graphc.onnx import save

    x = row(widths[0])
    with TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(save(frozen(widths), Path(folder) / "mlp.onnx"))
    return lambda: session.run(None, {"x": x})


def by_numpy(widths: Sequence[int]) -> Run:
    a = np.zeros(16, np.float32)
    return lambda: np.add(a, a, out=a)


CONTROL = {"graphc": by_graphc, "onnxruntime": by_onnxruntime, "np.add": by_numpy}


def compare_control_loops(rounds: int, seconds: float) -> None:
    """Print for each net the medians over some rounds of each side's numbers."""
    head = f"{'at once':>8} {'p50':>8} {'p99':>8} {'p99.9':>8} us"
    print(f"\nevery {PERIOD * 1e3:.0f} ms{'':<13} {head} {'p50':>7} {'p99.9 / p50':>11}")
    for name in CONTROL_NETS:
        found: dict[str, list[list[float]]] = {side: [] for side in CONTROL}
        for _ in range(rounds):
            for side, numbers in found.items():
                command = [sys.executable, "-m", __spec__.name, "--control", side, name]
                done = subprocess.run(
                    [*command, "--seconds", str(seconds)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                numbers.append([float(word) for word in done.stdout.split()])
        for side, each in found.items():
            at_once, *paced = np.median(each, axis=0)
            ratios = f"{paced[0] / at_once:7.2f} {paced[2] / paced[0]:11.2f}"
            numbers_text = " ".join(f"{value:8.1f}" for value in (at_once, *paced))
            print(f"{name:<8} {side:<12} {numbers_text}    {ratios}", flush=True)


def main() -> None:
    """Print a line for each net and load, then the control loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nets", nargs="*", choices=NETS, default=list(NETS))
    parser.add_argument("--busy", nargs="*", type=int, default=list(BUSY))
    parser.add_argument("--pools", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--paced", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--control", nargs=2, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.control:
        side, name = said.control
        control_loop(side, name, said.seconds)
        return
    ratios = f"{'mean':>7} {'p99':>7} {'/ best':>7} {'all':>7}"
    print(f"{cores()} cores\n{'net':<13} {'beside':>6} {'one thread':>13} {ratios}")
    for count in said.busy:
        for name in said.nets:
            with busy(count):
                compare(name, str(count), said.rounds, said.seconds, lambda: None)
    if said.pools:
        others = pools()
        for name in said.nets:
            compare(name, "pools", said.rounds, said.seconds, others)
    if said.paced:
        compare_control_loops(said.rounds, 10 * said.seconds)


if __name__ == "__main__":
    main()
