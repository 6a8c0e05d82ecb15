"""Predicted steps beside measured ones.

    mpiexec -n 2 python -m mpi4py -m tests.tools.benchmarks.scaling
    mpiexec -n 2 python -m mpi4py -m tests.tools.benchmarks.scaling --bandwidth 1Gb/s --latency 2ms

Each round measures all afresh: rank 0 predicts while the others sleep, then all make steps
together, and rank 0 alone.  What is printed are medians over the rounds.  Messages between
processes of one machine are carried by the cores that work, so nothing of them is hidden; with a
bandwidth and a latency they are delayed as on such a network, and travel meanwhile.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import graphc as gc
from graphc.cli.plan import bandwidth, latency
from graphc.runtime.distributed.communicator import Communicator, wait
from graphc.runtime.distributed.mpi import Mpi
from graphc.runtime.distributed.predict import Network, predict
from tests.runtime.distributed.delayed import Delayed
from tests.tools.benchmarks.distributed import SIZES, net

SECONDS = 0.4
LARGE, SMALL, TIMES = 2**20, 64, 25


@dataclass(frozen=True)
class Step:
    """Seconds of a step alone and on all ranks, as predicted and as measured."""

    alone: float
    alone_predicted: float
    together: float
    predicted: float


def compiled(name: str, ranks: int) -> gc.Plan:
    optimizer = gc.SGD(lr=0.01, momentum=0.9)
    return gc.compile(net(name), batch=SIZES[name][1], optimizer=optimizer, threads=1, ranks=ranks)


def feeds_of(name: str) -> dict[str, Any]:
    sizes, batch = SIZES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, sizes[0]), np.float32)
    return {"x": x, "y": rng.integers(0, sizes[-1], batch)}


def steps(ex: gc.Executor, feeds: dict[str, Any], count: int) -> float:
    """The median of some steps."""
    times = []
    for _ in range(count):
        start = perf_counter()
        ex.step(feeds)
        times.append(perf_counter() - start)
    return median(times)


def network_of(ranks: Communicator) -> Network:
    """What messages between two ranks take here, of numbers that are in no cache near a core."""
    ranks.expect([2 * LARGE])

    def seconds(nbytes: int) -> float:
        cold = np.zeros((TIMES, 2, nbytes), np.uint8)
        times = []
        cold[:, 0] = 1
        for out, into in cold:
            ranks.gather(None)
            start = perf_counter()
            swap = ranks.swap(ranks.rank ^ 1, out, into, 0)
            wait(swap, ranks.limit)
            if swap.arrived is not into:
                np.copyto(into, swap.arrived)
            times.append(perf_counter() - start)
        return median(times)

    small, large = seconds(SMALL), seconds(LARGE)
    return Network(LARGE / max(large - small, 1e-9), small)


def measure(name: str, world: Communicator, delay: Network | None) -> Step:
    """One round."""
    feeds = feeds_of(name)
    network = delay or network_of(world)
    one = both = alone = 0.0
    count = 0
    if world.rank == 0:
        found = predict(partial(compiled, name), feeds, network, [1, world.size], SECONDS)["tree"]
        one, both = found[0].step, found[1].step if delay else found[1].blocking
        count = max(5, round(SECONDS / one))
        ex = gc.Executor(compiled(name, 1))
        ex.step(feeds)
        alone = steps(ex, feeds, count)
    count = world.gather(count)[0]
    ranks = Delayed(world, delay) if delay else world
    ex = gc.Executor(compiled(name, world.size), communicator=ranks)
    steps(ex, feeds, 3)
    return Step(alone, one, steps(ex, feeds, count), both)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("nets", nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bandwidth", type=bandwidth)
    parser.add_argument("--latency", type=latency, default=20e-6)
    args = parser.parse_args()
    world = Mpi()
    delay = Network(args.bandwidth, args.latency) if args.bandwidth else None
    for name in args.nets:
        rounds = [measure(name, world, delay) for _ in range(args.rounds)]
        if world.rank == 0:
            values = {k: median(getattr(r, k) for r in rounds) for k in Step.__annotations__}
            told = {k: f"{1e3 * value:.3f}" for k, value in values.items()}
            print(
                f"{name}: alone {told['alone_predicted']} ms predicted, {told['alone']} measured, "
                f"{values['alone_predicted'] / values['alone'] - 1:+.0%}; on {world.size} ranks "
                f"{told['predicted']} predicted, {told['together']} measured, "
                f"{values['predicted'] / values['together'] - 1:+.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
