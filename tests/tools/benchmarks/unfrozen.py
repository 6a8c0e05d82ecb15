"""Inference of plans that are not frozen, beside that of frozen ones and of ONNX Runtime.

    python -m tests.tools.benchmarks.unfrozen FOLDER [NAME ...] [--batches 1,8,32] [--threads 1,2]
    python -m tests.tools.benchmarks.unfrozen FOLDER --fit --precision bf16

The networks are those that torch exports: FOLDER has their files, as `peers.exported` writes them.
Four sides take turns: a frozen plan; the plan itself; the plan after a parameter has changed, as
between two steps of training; and ONNX Runtime.  With --fit the nets are those of the comparison
with peers, which train: the turns are `predict` and `evaluate` after each step of training, beside
`predict` of the frozen net.  With --precision the plans, frozen or not, are also compared with
those of float32.  The figures are medians of ratios to the first side, in the same turn: of the
thread's own time on one thread, else of the clock's.  Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, median
from time import perf_counter, thread_time
from typing import Any, NamedTuple

import numpy as np

import graphc as gc
from tests.tools.benchmarks.peers.outline import batches, outline
from tests.tools.benchmarks.peers.sides.graphc_side import Native
from tests.tools.benchmarks.peers.workloads import EXPORTED, WORKLOADS

TRAINED = "mnist", "wide", "lenet", "resnet20", "mobilenet"
"""The nets that --fit trains."""
REST = 0.02
"""The seconds of a turn, at least."""
Run = Callable[[], object]


class Ratios(NamedTuple):
    """The medians of a case: milliseconds of the first side, and ratios of the others to it."""

    name: str
    batch: int
    threads: int
    first: float
    others: Mapping[str, float]

    def __str__(self) -> str:
        ratios = "  ".join(f"{name} {ratio:5.2f}" for name, ratio in self.others.items())
        return (
            f"{self.name:16} {self.batch:4} {self.threads:2} {1e3 * self.first:9.3f} ms  {ratios}"
        )


def compared(
    name: str, batch: int, threads: int, sides: Mapping[str, tuple[Run, Run]], rounds: int
) -> Ratios:
    """Let sides take turns, each with what is done before a run and is not timed."""
    clock = thread_time if threads == 1 else perf_counter
    found: dict[str, list[float]] = {side: [] for side in sides}
    counts: dict[str, int] = {}
    for side, (before, run) in sides.items():
        before()
        run()  # compiles
        before()
        start = perf_counter()
        run()
        counts[side] = max(1, round(REST / max(perf_counter() - start, 1e-6)))
    for _ in range(rounds):
        for side, (before, run) in sides.items():
            spent = 0.0
            for _ in range(counts[side]):
                before()
                start = clock()
                run()
                spent += clock() - start
            found[side].append(spent / counts[side])
    first, *others = found.values()
    ratios = [median(b / a for a, b in zip(first, one, strict=True)) for one in others]
    return Ratios(name, batch, threads, median(first), dict(zip([*found][1:], ratios, strict=True)))


def nothing() -> None:
    """Do nothing before a run."""


def changing(ex: gc.Executor) -> Run:
    """A function that sets the smallest parameter to what it is: another version of the state."""
    name, array = min(ex.parameters.items(), key=lambda item: item[1].size)
    return lambda: ex.parameters.update({name: array})


def network(
    path: Path, batch: int, threads: int, precision: Any
) -> Iterator[tuple[str, tuple[Run, Run]]]:
    """Yield the sides of an exported network."""
    with np.load(path.with_suffix(".npz")) as file:
        x = np.resize(file["x"], (batch, *file["x"].shape[1:]))
    model = str(path.with_suffix(".onnx"))
    for to in dict.fromkeys((None, precision)):
        net = gc.onnx.load(model)
        ex = gc.Executor(gc.compile(net, batch=batch, threads=threads, precision=to))
        frozen = gc.freeze(ex, batch=batch)
        end = f" {to}" if to else ""
        yield f"frozen{end}", (nothing, lambda ex=frozen: ex.forward(x=x, copy=False))
        yield f"plan{end}", (nothing, lambda ex=ex: ex.forward(x=x, copy=False))
        yield f"changed{end}", (changing(ex), lambda ex=ex: ex.forward(x=x, copy=False))
    try:
        from tests.tools.benchmarks.peers.sides.onnx_side import OnnxRuntime
    except ImportError:
        return
    infer = OnnxRuntime(threads).load(path, batch)
    yield "onnxruntime", (nothing, lambda: infer({"x": x}))


def in_fit(
    name: str, batch: int, threads: int, precision: Any
) -> Iterator[tuple[str, tuple[Run, Run]]]:
    """Yield the sides of a net that trains: before each run it makes a step."""
    workload, parameters = WORKLOADS[name], outline(name).parameters
    (fed,), (shown,) = batches(name, workload.batch, 1), batches(name, batch, 1)
    x = {key: array for key, array in shown.items() if key != "y"}
    for to in dict.fromkeys((None, precision)):
        side = Native(threads)
        side.precision = to
        optimizer = gc.SGD(lr=workload.lr, momentum=0.9)
        ex = side.executor(workload, parameters, False, workload.batch, optimizer)
        frozen = gc.freeze(ex, batch=workload.batch)
        end = f" {to}" if to else ""
        yield f"frozen{end}", (lambda ex=ex: ex.step(fed), lambda ex=frozen: ex.predict(**x))
        yield f"predict{end}", (lambda ex=ex: ex.step(fed), lambda ex=ex: ex.predict(**x))
        yield f"evaluate{end}", (lambda ex=ex: ex.step(fed), lambda ex=ex: ex.evaluate(**shown))


def summary(made: Sequence[Ratios]) -> Iterator[str]:
    """Yield the mean and the largest ratio of each side, at batches of 8 and more and at others."""
    for side in dict.fromkeys(side for one in made for side in one.others):
        for what, few in (("8 rows and more", False), ("fewer rows", True)):
            some = [one for one in made if side in one.others and (one.batch < 8) is few]
            if some:
                worst = max(some, key=lambda one: one.others[side])
                mean, most = fmean(one.others[side] for one in some), worst.others[side]
                yield f"{side}, {what}: mean {mean:.2f}, at most {most:.2f} ({worst.name})"


def main(argv: list[str] | None = None) -> int:
    """Print a line for each case, and what they come to."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.benchmarks.unfrozen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=("bf16",))
    parser.add_argument("--fit", action="store_true")
    args = parser.parse_intermixed_args(argv)
    numbers = [[int(part) for part in text.split(",")] for text in (args.threads, args.batches)]
    made: list[Ratios] = []
    for name in args.names or (TRAINED if args.fit else EXPORTED):
        for threads, batch in product(*numbers):
            given = batch, threads, args.precision
            sides = in_fit(name, *given) if args.fit else network(args.folder / name, *given)
            made.append(compared(name, batch, threads, dict(sides), args.rounds))
            print(made[-1], flush=True)
    print(*summary(made), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
