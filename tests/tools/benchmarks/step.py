"""Time a training step: graphc's numpy plan beside the hand-written steps, in one process.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m tests.tools.benchmarks.step

The three sides take turns in short rounds, so that a change of the machine's speed meets all
of them; a figure is the median over rounds.  Losses are compared with float64 first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

import graphc as gc
from tests.tools.benchmarks import hand_written as peers

Step = Callable[[Any, Any], float]
ROUND_SECONDS = 0.05


def graphc_executor(workload: str, keep: float | None, lr: float) -> gc.Executor:
    """An executor for a workload, at the harness's initial parameters."""
    shape: dict[str, Any] = peers.W[workload]
    sizes = shape["sizes"]
    net = gc.Net(workload)
    x = net.input("x", (gc.N, sizes[0]))
    y = net.input("y", (gc.N,), dtype="int64")
    h = x
    for width in sizes[1:-1]:
        h = gc.affine(h, width)
        h = gc.batchnorm(h) if shape.get("bn") else h
        h = gc.relu(h)
        h = gc.dropout(h, keep_prob=keep) if keep and shape.get("bn") else h
    scores = gc.affine(h, sizes[-1], name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    sgd = gc.SGD(lr=lr, momentum=peers.MU)
    plan = gc.compile(net, batch=shape["batch"], optimizer=sgd, backend="numpy")
    ex = gc.Executor(plan, seed=3)
    layers = [*(f"affine_{i + 1}" for i in range(len(sizes) - 2)), "scores"]
    for i, (layer, values) in enumerate(zip(layers, peers.make_params(workload), strict=True)):
        ex.parameters[f"{layer}.weight"], ex.parameters[f"{layer}.bias"] = values["W"], values["b"]
        if "g" in values:
            ex.parameters[f"batchnorm_{i + 1}.gamma"] = values["g"]
            ex.parameters[f"batchnorm_{i + 1}.beta"] = values["t"]
    return ex


def graphc_step(workload: str, keep: float | None, lr: float) -> Step:
    """graphc's step by the harness's calling convention."""
    ex = graphc_executor(workload, keep, lr)
    return lambda x, y: ex.step(x=x, y=y)


def hand_step(kind: type[peers.Base], workload: str, keep: float | None, lr: float) -> Step:
    """A hand-written step whose loss is read back as a float."""
    step, fetch = kind(1).train(workload, keep, lr)  # type: ignore[attr-defined]
    return lambda x, y: fetch(step(x, y))


def check_losses(workload: str, lr: float) -> float:
    """The largest error of five steps' losses against float64, without dropout."""
    x, y = peers.make_pool(workload, n=1)[0]
    step = graphc_step(workload, None, lr)
    got = [step(x, y) for _ in range(peers.VERIFY_STEPS)]
    want = peers.reference_losses(workload, x, y, peers.VERIFY_STEPS)
    return max(abs(a - b) / max(1, abs(b)) for a, b in zip(got, want, strict=True))


def interleaved(sides: dict[str, Step], pool: list[Any], rounds: int) -> dict[str, list[float]]:
    """Microseconds a step of each side, one figure a round; the sides take turns."""
    loops = {name: _calibrate(step, pool) for name, step in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for r in range(rounds):
        names = list(sides) if r % 2 == 0 else list(sides)[::-1]
        for name in names:
            step, loop = sides[name], loops[name]
            start = perf_counter()
            for i in range(loop):
                step(*pool[i % len(pool)])
            times[name].append((perf_counter() - start) / loop * 1e6)
    return times


def _calibrate(step: Step, pool: list[Any]) -> int:
    for batch in pool[:3]:
        step(*batch)
    start = perf_counter()
    step(*pool[0])
    return max(1, int(ROUND_SECONDS / (perf_counter() - start)))


def measure(workload: str, rounds: int) -> dict[str, float]:
    """Median microseconds a step of each side, and their median ratios by round."""
    shape: dict[str, Any] = peers.W[workload]
    keep, lr = shape.get("keep"), shape.get("lr", peers.LR)
    sides = {
        "graphc": graphc_step(workload, keep, lr),
        "buffers": hand_step(peers.NumpyBuffers, workload, keep, lr),
        "layers": hand_step(peers.NumpyNaive, workload, keep, lr),
    }
    times = interleaved(sides, peers.make_pool(workload), rounds)
    result = {name: statistics.median(values) for name, values in times.items()}
    for other in ("buffers", "layers"):
        ratios = [a / b for a, b in zip(times["graphc"], times[other], strict=True)]
        result[f"graphc/{other}"] = statistics.median(ratios)
    return result


def main(argv: list[str] | None = None) -> int:
    """Print a table of all workloads asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=["tiny", "mnist", "seed", "deep"])
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args(argv)
    threads = os.environ.get("OPENBLAS_NUM_THREADS", f"default ({os.cpu_count()})")
    print(f"Python {sys.version.split()[0]}, numpy {np.__version__}, BLAS threads {threads}")
    columns = ("graphc us", "buffers us", "layers us", "/buffers", "/layers")
    print(f"{'workload':<8}", *(f"{column:>10}" for column in columns))
    for workload in options.workloads:
        error = check_losses(workload, peers.W[workload].get("lr", peers.LR))
        r = measure(workload, options.rounds)
        times = (f"{r[side]:>10.1f}" for side in ("graphc", "buffers", "layers"))
        ratios = (f"{r[f'graphc/{side}']:>10.3f}" for side in ("buffers", "layers"))
        print(f"{workload:<8}", *times, *ratios, f" loss error {error:.0e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
