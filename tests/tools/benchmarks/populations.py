"""Time a step of many small nets: a population beside loops of executors, JAX and PyTorch.

    python -m tests.tools.benchmarks.populations [--threads 2] [--members 64]

Each member has a rate, a seed and a batch of its own.  The sides take turns, and the figure of each
is its least time: with one thread CPU time, so that other processes count little; with more threads
time by the clock, which needs an idle machine.  The bound is the multiply-adds of the step at the
measured peak of the cores.  JAX and PyTorch are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import backend
from graphc.ir.op import Array

WIDTHS = {"tiny": (64, 64, 64, 10), "mnist": (784, 512, 256, 10)}
BATCHES = {"tiny": 32, "mnist": 128}
Side = Callable[[], object]


def plan_of(widths: tuple[int, ...], batch: int, threads: int) -> gc.Plan:
    net = gc.Net("member")
    x, y = net.input("x", (gc.N, widths[0])), net.input("y", (gc.N,), dtype="int64")
    h = x
    for width in widths[1:-1]:
        h = gc.relu(gc.affine(h, width))
    scores = net.output("scores", gc.affine(h, widths[-1]))
    net.loss("loss", gc.softmax_loss(scores, y))
    return gc.compile(net, batch=batch, optimizer=gc.SGD(lr=0.1), threads=threads)


def multiply_adds(widths: tuple[int, ...], batch: int) -> int:
    """The multiply-adds of a member's step: the first layer has no gradient of its input."""
    products = [a * b for a, b in pairwise(widths)]
    return batch * (3 * sum(products) - products[0])


class Workload:
    """The members, their rates and their batches."""

    def __init__(self, name: str, members: int, threads: int) -> None:
        self.widths, self.batch = WIDTHS[name], BATCHES[name]
        self.members, self.threads = members, threads
        rng = np.random.default_rng(0)
        shape = (members, self.batch, self.widths[0])
        self.x = rng.standard_normal(shape, np.float32)
        self.y = rng.integers(0, self.widths[-1], shape[:2])
        # So small that gradients do not become subnormal numbers over many equal steps.
        self.rates = np.geomspace(1e-5, 1e-4, members).astype(np.float32)

    def sides(self) -> Iterator[tuple[str, Side]]:
        plan = plan_of(self.widths, self.batch, self.threads)
        population = gc.Population(plan, members=self.members, hyper={"lr": self.rates})
        yield "population", lambda: population.step(x=self.x, y=self.y)
        pool = self.x.reshape(-1, self.widths[0]), self.y.reshape(-1)
        rows = list(np.arange(len(pool[0])).reshape(self.members, -1))
        yield "population, rows=", lambda: population.step(x=pool[0], y=pool[1], rows=rows)
        yield "loop of executors", self.loop()
        if find_spec("jax"):
            yield "JAX vmap", jax_side(self)
        if find_spec("torch"):
            yield "torch.func vmap", torch_side(self)

    def loop(self) -> Side:
        """Executors of one thread each, shared by a pool of threads if there are several."""
        plan = plan_of(self.widths, self.batch, 1)
        executors = [gc.Executor(plan, seed=seed) for seed in range(self.members)]
        for ex, rate in zip(executors, self.rates, strict=True):
            ex.hyper["lr"] = rate

        def run(part: range) -> list[float]:
            return [executors[i].step(x=self.x[i], y=self.y[i]) for i in part]

        if self.threads == 1:
            return lambda: run(range(self.members))
        pool = ThreadPoolExecutor(self.threads)
        parts = [range(t, self.members, self.threads) for t in range(self.threads)]
        return lambda: list(pool.map(run, parts))

    def parameters(self) -> list[tuple[Array, Array]]:
        """Parameters of all members for the peers, layer by layer."""
        rng = np.random.default_rng(1)
        pairs = pairwise(self.widths)
        return [
            (
                rng.standard_normal((self.members, a, b), np.float32) / np.float32(np.sqrt(a)),
                np.zeros((self.members, b), np.float32),
            )
            for a, b in pairs
        ]


def jax_side(work: Workload) -> Side:
    import jax
    import jax.numpy as jnp

    def loss(layers: Any, x: Any, y: Any) -> Any:
        *hidden, last = layers
        for weight, bias in hidden:
            x = jax.nn.relu(x @ weight + bias)
        scores = x @ last[0] + last[1]
        return -jnp.mean(jax.nn.log_softmax(scores)[jnp.arange(len(y)), y])

    def step(layers: Any, rate: Any, x: Any, y: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(layers, x, y)
        return jax.tree.map(lambda p, g: p - rate * g, layers, gradients), value

    run = jax.jit(jax.vmap(step), donate_argnums=0)
    state = [jax.tree.map(jnp.asarray, work.parameters())]
    y = work.y.astype(np.int32)

    def once() -> Array:
        state[0], losses = run(state[0], work.rates, work.x, y)
        return np.asarray(losses)

    return once


def torch_side(work: Workload) -> Side:
    import torch
    from torch.func import grad_and_value, vmap
    from torch.nn import functional

    torch.set_num_threads(work.threads)

    def loss(layers: Any, x: Any, y: Any) -> Any:
        *hidden, last = layers
        for weight, bias in hidden:
            x = torch.relu(x @ weight + bias)
        return functional.cross_entropy(x @ last[0] + last[1], y)

    run = vmap(grad_and_value(loss))
    layers = [tuple(map(torch.from_numpy, pair)) for pair in work.parameters()]
    rates = torch.from_numpy(work.rates)

    def once() -> Array:
        gradients, losses = run(layers, torch.from_numpy(work.x), torch.from_numpy(work.y))
        with torch.no_grad():
            for pair, of_pair in zip(layers, gradients, strict=True):
                for p, g in zip(pair, of_pair, strict=True):
                    p -= rates.reshape(-1, *[1] * (p.ndim - 1)) * g
        return np.asarray(losses.detach())

    return once


PEAKS = 50
"""The calls of a thread in a round of the peak: so many that handing them out costs nothing."""


def peak_side(threads: int) -> tuple[Side, int]:
    """Multiply-adds at the peak on all threads, and how many there are."""
    work = backend("native").peak_work()
    calls = [work.make() for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def run(call: Side) -> None:
        for _ in range(PEAKS):
            call()

    return lambda: list(pool.map(run, calls)), PEAKS * threads * work.flops // 2


def least(sides: dict[str, Side], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """The least seconds of each side; they take turns."""
    found = dict.fromkeys(sides, np.inf)
    for _ in range(rounds):
        for name, side in sides.items():
            for _ in range(3):
                begin = clock()
                side()
                found[name] = min(found[name], clock() - begin)
    return found


def report(name: str, members: int, threads: int, rounds: int) -> None:
    work = Workload(name, members, threads)
    peak, count = peak_side(threads)
    # By the clock a step of one thread would count what other processes take; its CPU time does
    # not.  JAX has threads of its own, whose time only that of the process has.
    clock = time.perf_counter if threads > 1 else time.process_time
    times = least({"peak": peak, **dict(work.sides())}, rounds, clock)
    bound = times.pop("peak") * members * multiply_adds(work.widths, work.batch) / count
    print(f"{members} members of {name}, {threads} threads, bound {1e6 * bound:.0f} us")
    for side, seconds in times.items():
        ours = times["population"] / seconds
        print(f"  {side:<20} {1e6 * seconds:>9.0f} us  {seconds / bound:>6.2f} bounds", end="")
        print(f"  the population takes {ours:.2f} of it")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--members", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    for name, members in (("tiny", asked.members or 64), ("mnist", asked.members or 8)):
        report(name, members, asked.threads, asked.rounds)


if __name__ == "__main__":
    main()
