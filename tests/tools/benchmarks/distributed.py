"""Two ranks of one thread beside one process of one thread.

    mpiexec -n 2 python -m mpi4py -m tests.tools.benchmarks.distributed
    mpiexec -n 2 python -m mpi4py -m tests.tools.benchmarks.distributed --rounds 21 wide

Rank 0 also runs the single process, in turns with the ranks, while the other sleeps.  All times
are medians over the steps of a turn, and over the turns.  `exchange` is the part of a rank's step
in which it starts sums, pushes them on, adds up, or waits for the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

import graphc as gc
from graphc.runtime.distributed.communicator import Communicator
from graphc.runtime.distributed.mpi import Mpi

SIZES = {
    "digits": ((64, 100, 50, 10), 128),
    "mnist": ((784, 512, 256, 10), 512),
    "wide": ((1024, 4096, 4096, 1000), 512),
}
"""Features of the input, of each layer, and the rows of a batch."""
SECONDS = 0.3
"""How long each side runs in a turn, at least."""


@dataclass(frozen=True)
class Found:
    """Seconds of a step: alone, and on a rank; and in it of the exchange."""

    alone: float
    rank: float
    exchange: float

    @property
    def times(self) -> float:
        """How many times as fast the ranks are."""
        return self.alone / self.rank


def net(name: str) -> gc.Net:
    """A chain of affine layers and relus."""
    (first, *widths), _ = SIZES[name]
    made = gc.Net(name)
    h = made.input("x", (gc.N, first))
    y = made.input("y", (gc.N,), dtype="int64")
    for width in widths[:-1]:
        h = gc.relu(gc.affine(h, width))
    made.loss("loss", gc.softmax_loss(gc.affine(h, widths[-1]), y))
    return made


def executor(name: str, ranks: Communicator | None = None) -> gc.Executor:
    """One thread; alone, or a rank's share of the batch."""
    plan = gc.compile(
        net(name),
        batch=SIZES[name][1],
        optimizer=gc.SGD(lr=0.01, momentum=0.9),
        threads=1,
        ranks=1 if ranks is None else ranks.size,
    )
    return gc.Executor(plan, communicator=ranks)


def measure(name: str, ranks: Communicator, rounds: int) -> Found:
    """Both sides in turns; meaningful on rank 0."""
    sizes, batch = SIZES[name]
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((batch, sizes[0]), np.float32),
        "y": rng.integers(0, sizes[-1], batch),
    }
    together = executor(name, ranks)
    alone = executor(name) if ranks.rank == 0 else None
    assert together.sharded is not None
    exchange = together.sharded.exchange
    together.step(feeds)
    count = ranks.gather(0 if alone is None else _count(lambda: alone.step(feeds)))[0]
    times: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        one = [0.0] if alone is None else _steps(lambda: alone.step(feeds), count)
        ranks.gather(None)
        both, exchanged = list[float](), list[float]()
        for _ in range(count):
            before = exchange.seconds
            both += _steps(lambda: together.step(feeds), 1)
            exchanged.append(exchange.seconds - before)
        times.append((median(one), median(both), median(exchanged)))
    return Found(*(median(column) for column in zip(*times, strict=True)))


def _count(step: Callable[[], object]) -> int:
    """The steps of a turn."""
    step()
    return max(3, round(SECONDS / median(_steps(step, 3))))


def _steps(step: Callable[[], object], count: int) -> list[float]:
    """Seconds of some steps."""
    times = []
    for _ in range(count):
        start = perf_counter()
        step()
        times.append(perf_counter() - start)
    return times


def main() -> None:
    """Measure, and print a line for each net on rank 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("nets", nargs="*", default=["mnist", "wide"], help=", ".join(SIZES))
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    ranks = Mpi()
    for name in args.nets:
        found = measure(name, ranks, args.rounds)
        if ranks.rank == 0:
            print(
                f"{name}: {found.alone * 1e3:.2f} ms alone, {found.rank * 1e3:.2f} ms on "
                f"{ranks.size} ranks, {found.times:.2f} times as fast; exchange "
                f"{found.exchange * 1e3:.2f} ms, {found.exchange / found.rank:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
