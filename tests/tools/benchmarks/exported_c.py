"""Exported C on this machine, beside the native backend on one thread.

    python -m tests.tools.benchmarks.exported_c [gcc clang]

compiles each net with `-O3 -march=native`, and runs a training step of both sides in turns.  Then
inference of one row is called in a loop of C.  Times are the least of many runs.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

import graphc as gc
from tests.files.c_model import CModel

NETS = {"tiny": ((64, 64, 64, 10), 32, 20), "mnist": ((784, 256, 128, 10), 128, 1)}
"""The widths of a net, its batch, and the calls of a run."""
LOOP = """\
#include "model.h"
void loop(void *state, void *work, const float *x, float *scores, int rounds)
{
    for (int i = 0; i < rounds; ++i) model_infer(state, work, 1, x, scores);
}
"""


def net(widths: tuple[int, ...]) -> gc.Net:
    """Affine maps and relus."""
    made = gc.Net("mlp")
    h = made.input("x", (gc.N, widths[0]))
    for width in widths[1:-1]:
        h = gc.relu(gc.affine(h, width))
    scores = made.output("scores", gc.affine(h, widths[-1]))
    made.loss("loss", gc.softmax_loss(scores, made.input("y", (gc.N,), dtype="int64")))
    return made


def fastest(*calls: Callable[[], Any], rounds: int) -> list[float]:
    """The least seconds of each call, over runs in turns."""
    best = [float("inf")] * len(calls)
    for _ in range(300):
        for number, call in enumerate(calls):
            start = perf_counter()
            for _ in range(rounds):
                call()
            best[number] = min(best[number], (perf_counter() - start) / rounds)
    return best


def address(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def measure(name: str, cc: str, folder: Path) -> None:
    """Print the times of a net."""
    widths, batch, rounds = NETS[name]
    optimizer = gc.SGD(lr=0.01, momentum=0.9)
    plan = gc.compile(net(widths), batch=batch, optimizer=optimizer, backend="native", threads=1)
    ex = gc.Executor(plan, seed=0)
    (folder / "loop.c").write_text(LOOP)
    model = CModel(ex, folder, "-O3", "-march=native", str(folder / "loop.c"), cc=cc)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, widths[0])).astype(np.float32)
    y, scores = rng.integers(0, widths[-1], batch), np.zeros((batch, widths[-1]), np.float32)
    memory = address(model.state), address(model.work)
    arguments = (*memory, ctypes.c_ssize_t(batch), address(x), address(y), address(scores))
    step = model.library.model_train_step
    step.restype = ctypes.c_float
    printed, native = fastest(lambda: step(*arguments), lambda: ex.step(x=x, y=y), rounds=rounds)
    one = (*memory, address(x), address(scores), 1000)
    (loop,) = fastest(lambda: model.library.loop(*one), rounds=1)
    print(
        f"| {name} | {cc} | {printed * 1e6:,.1f} us | {native * 1e6:,.1f} us "
        f"| {printed / native:.2f} | {loop / 1000 * 1e6:.2f} us |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("compilers", nargs="*", default=["gcc"])
    print("| net | compiler | step in C | native | ratio | inference of a row |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for cc in parser.parse_args().compilers:
        for name in NETS:
            with TemporaryDirectory() as folder:
                try:
                    measure(name, cc, Path(folder))
                except subprocess.CalledProcessError as error:
                    raise SystemExit(error.stderr.decode()) from None


if __name__ == "__main__":
    main()
