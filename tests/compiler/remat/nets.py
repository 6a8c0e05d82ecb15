"""Nets whose activations are most of what a training step needs."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.native.target import available
from graphc.compiler.plan import Plan
from graphc.compiler.remat.fit import least_total, sparing

BACKENDS = ("numpy",) if available() is not None else ("numpy", "native")
SGD = gc.SGD(lr=0.01, momentum=0.9)


def deep(layers: int, width: int, dtype: str = "float32") -> gc.Net:
    """Affine and relu, again and again."""
    net = gc.Net("deep", dtype=dtype)
    h = net.input("x", (gc.N, width))
    for _ in range(layers):
        h = gc.relu(gc.affine(h, width))
    return _with_loss(net, h)


def residual(blocks: int, width: int, dtype: str = "float32") -> gc.Net:
    """Blocks of two affine maps with batchnorm, a shortcut around each."""
    net = gc.Net("residual", dtype=dtype)
    h = gc.affine(net.input("x", (gc.N, width)), width)
    for _ in range(blocks):
        branch = gc.relu(gc.batchnorm(gc.affine(h, width)))
        h = gc.relu(h + gc.batchnorm(gc.affine(branch, width)))
    return _with_loss(net, h)


def dropped(layers: int, width: int, dtype: str = "float32") -> gc.Net:
    """With dropout, layers that are joined, and parts that are cut out."""
    net = gc.Net("dropped", dtype=dtype)
    h = net.input("x", (gc.N, width))
    for _ in range(layers):
        left = gc.dropout(gc.tanh(gc.affine(h, width)), keep_prob=0.7)
        h = gc.relu(gc.affine(gc.concat([left, h[:, : width // 2]], axis=-1), width))
    return _with_loss(net, h)


def _with_loss(net: gc.Net, h: gc.Value) -> gc.Net:
    scores = gc.affine(h, 5, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


def tight(plan: Plan) -> int:
    """A budget in the middle between the least memory that is found and that without clones."""
    return (least_total(plan) + sparing(plan).memory.total) // 2


def halved(plan: Plan) -> int:
    """The budget that leaves half of the arena, and all of what else a plan needs."""
    return plan.memory.total - plan.memory.arena // 2


def arrays(plan: Plan, n: int, seed: int) -> dict[str, Any]:
    """Feeds for a step."""
    rng = np.random.default_rng(seed)
    x = plan.declared["x"].type
    return {
        "x": rng.standard_normal((n, *x.shape[1:])).astype(x.dtype),
        "y": rng.integers(0, 5, n),
    }


def results(plan: Plan, steps: int) -> dict[str, bytes]:
    """All losses, all that lasts, and gradients by themselves, in bytes."""
    ex = gc.Executor(plan, seed=4)
    rows = [plan.batch if i % 3 else max(1, plan.batch - 1) for i in range(steps)]
    losses = [ex.step(arrays(plan, n, i)) for i, n in enumerate(rows)]
    found = {"losses": np.array(losses).tobytes()}
    for time in ("first", "second"):
        outputs = ex.forward(arrays(plan, plan.batch, steps), train=True)
        found |= {f"{time} {k}": v.tobytes() for k, v in outputs.items()}
        found |= {f"{time} d_{k}": v.tobytes() for k, v in ex.backward().items()}
    return found | {k: v.tobytes() for k, v in ex.snapshot().items()}
