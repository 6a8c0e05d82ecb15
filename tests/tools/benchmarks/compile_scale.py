"""How the time to compile grows with the size of the net, for kinds of net that differ.

    python -m tests.tools.benchmarks.compile_scale [KIND ...]

prints for each kind the seconds at about 1,000, 10,000 and 100,000 nodes of the compiled step, and
the time a node beside that of the smallest.  Native code is made later, when a program first runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from time import perf_counter

import graphc as gc

LAYERS = 840, 8_400
"""The layers of chains of 10,000 and 100,000 nodes."""
NODES = 1_000, 10_000, 100_000
REPEATS = 3
"""The runs of a size, of which the best counts; large ones run once."""


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


def chain(nodes: int) -> gc.Net:
    """Affine maps and relus, one after the other."""
    return declare(nodes // 12)


def lstm(nodes: int) -> gc.Net:
    """A recurrent net, written out step by step."""
    steps, width = max(nodes // 60, 1), 8
    net = gc.Net("lstm")
    x = net.input("x", (gc.N, steps, width))
    weight = net.parameter("weight", (2 * width, 4 * width))
    c = gc.affine(x[:, 0], width)
    h = gc.tanh(c)
    for step in range(steps):
        z = gc.concat([x[:, step], h], axis=1) @ weight
        i, f, g, o = (z[:, gate * width : (gate + 1) * width] for gate in range(4))
        c = gc.sigmoid(f) * c + gc.sigmoid(i) * gc.tanh(g)
        h = gc.sigmoid(o) * gc.tanh(c)
    return _ended(net, h)


def elements(nodes: int) -> gc.Net:
    """Functions of elements, each of the last and of one that all read."""
    net = gc.Net("elements")
    first = h = gc.affine(net.input("x", (gc.N, 8)), 8)
    for _ in range(nodes // 20):
        h = gc.tanh(gc.sigmoid(h - 0.25) * first + 0.5)
    return _ended(net, h)


def fan(nodes: int) -> gc.Net:
    """Branches that all read one value, and their sum."""
    net = gc.Net("fan")
    trunk = h = gc.affine(net.input("x", (gc.N, 8)), 8)
    for _ in range(nodes // 18):
        h = h + gc.tanh(gc.affine(trunk, 8))
    return _ended(net, h)


def residual(nodes: int) -> gc.Net:
    """Blocks of convolutions and batchnorms, added to what they read."""
    net = gc.Net("residual")
    h = gc.conv2d(net.input("x", (gc.N, 3, 8, 8)), 4, 3, padding=1)
    for _ in range(nodes // 87):
        g = gc.relu(gc.batchnorm(gc.conv2d(h, 4, 3, padding=1, bias=False)))
        g = gc.batchnorm(gc.conv2d(g, 4, 3, padding=1, bias=False))
        h = gc.relu(gc.add(g, h))
    return _ended(net, gc.flatten(gc.global_avg_pool(h)))


def dense(nodes: int) -> gc.Net:
    """Blocks of layers that each read all before them in the block."""
    net = gc.Net("dense")
    h = gc.affine(net.input("x", (gc.N, 8)), 8)
    for _ in range(nodes // 148):
        for _ in range(8):
            h = gc.concat([h, gc.relu(gc.affine(h, 4))], axis=1)
        h = gc.relu(gc.affine(h, 8))
    return _ended(net, h)


def _ended(net: gc.Net, h: gc.Value) -> gc.Net:
    """The net with a loss of a few classes."""
    scores = gc.affine(h, 4)
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


KINDS: Mapping[str, Callable[[int], gc.Net]] = {
    kind.__name__: kind for kind in (chain, lstm, elements, fan, residual, dense)
}
"""For each kind a function that declares a net whose step has about so many nodes."""


def measure(kind: str, nodes: int) -> tuple[int, float]:
    """The nodes of the step, and the best time to compile it."""
    best, made = float("inf"), 0
    for _ in range(REPEATS if nodes < max(NODES) else 1):
        net, optimizer = KINDS[kind](nodes), gc.SGD(lr=0.1, momentum=0.9)
        start = perf_counter()
        plan = gc.compile(net, batch=4, optimizer=optimizer)
        best = min(best, perf_counter() - start)
        made = len(plan.programs["step"].graph)
        del plan
    return made, best


def main() -> None:
    """Print a line for each kind and size."""
    for kind in sys.argv[1:] or KINDS:
        first = 0.0
        for nodes in NODES:
            made, seconds = measure(kind, nodes)
            cost = seconds / made
            first = first or cost
            print(
                f"{kind:<9} {made:>8,} nodes  {seconds:6.2f} s  {cost * 1e6:5.1f} us a node"
                f"  x{cost / first:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
