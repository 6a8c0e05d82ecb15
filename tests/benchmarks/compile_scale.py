"""How the time to declare, verify and compile grows with the size of the net.

    python -m tests.benchmarks.compile_scale

prints, for each backend, the seconds at about 10,000 and 100,000 nodes of the compiled step, and
the time a node.  Native code is made later, when a program first runs.
"""

from __future__ import annotations

from time import perf_counter

import graphc as gc

LAYERS = 840, 8_400
REPEATS = 3


def declare(layers: int) -> gc.Net:
    """A chain of affine maps and relus: twelve nodes a layer once compiled into a step."""
    net = gc.Net("chain")
    h = net.input("x", (gc.N, 8))
    for _ in range(layers):
        h = gc.relu(gc.affine(h, 8))
    net.output("scores", h)
    net.loss("loss", gc.softmax_loss(h, net.input("y", (gc.N,), dtype="int64")))
    return net


def compiled(layers: int, backend: str | None = None) -> gc.Plan:
    """The plan of a chain, for training."""
    optimizer = gc.SGD(lr=0.1, momentum=0.9)
    return gc.compile(declare(layers), batch=4, optimizer=optimizer, backend=backend)


def measure(layers: int, backend: str) -> tuple[int, float]:
    """The nodes of the step, and the best time of a few."""
    best, nodes = float("inf"), 0
    for _ in range(REPEATS):
        start = perf_counter()
        plan = compiled(layers, backend)
        best = min(best, perf_counter() - start)
        nodes = len(plan.programs["step"].graph)
        del plan
    return nodes, best


def main() -> None:
    """Print a line for each size, and the ratio of the times a node."""
    for backend in ("native", "numpy"):
        compiled(10, backend)
        costs = []
        for layers in LAYERS:
            nodes, seconds = measure(layers, backend)
            costs.append(seconds / nodes)
            cost = f"{seconds:6.2f} s  {costs[-1] * 1e6:5.1f} us a node"
            print(f"{backend:<6} {nodes:>8,} nodes  {cost}")
        print(f"{backend:<6} time a node grows by {costs[-1] / costs[0]:.2f}")


if __name__ == "__main__":
    main()
