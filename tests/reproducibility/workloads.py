"""The five nets that the benchmarks are about, as they are or smaller, and the bytes they leave."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import graphc as gc
from tests.tools.benchmarks.peers.sides.graphc_side import Declare
from tests.tools.benchmarks.peers.workloads import MAIN, MOMENTUM, Chain, Workload

SMALLER = {
    "tiny": MAIN["tiny"],
    "mnist": Workload(Chain((98, 130, 66, 10)), 128),
    "seed": Workload(Chain((98, 130, 66, 10), batchnorm=True, keep=0.8), 128),
    "deep": Workload(Chain((32,) * 21 + (10,)), 64, lr=1e-5),
    "wide": Workload(Chain((128, 520, 520, 126)), 256),
}
"""The same shapes at about a sixth of the width; none is a multiple of what a tile holds."""

ROWS = {"whole": 1.0, "most": 0.77, "one": 0.0}
"""The part of a batch that steps have in turn; at least one row."""


def executor(workload: Workload, **options: Any) -> gc.Executor:
    """An executor that trains the net by SGD with momentum, dropout included."""
    made = Declare(dropout=True)
    workload.declare(made)
    sgd = gc.SGD(lr=workload.lr, momentum=MOMENTUM)
    return gc.Executor(gc.compile(made.net, batch=workload.batch, optimizer=sgd, **options), seed=3)


def batches(workload: Workload, steps: int) -> Iterator[dict[str, Any]]:
    """Random rows and labels, the same in every call."""
    chain = workload.chain
    assert chain is not None
    rng = np.random.default_rng(11)
    parts = list(ROWS.values())
    for step in range(steps):
        n = max(1, int(workload.batch * parts[step % len(parts)]))
        x = rng.standard_normal((n, chain.sizes[0]), np.float32)
        yield {"x": x, "y": rng.integers(0, chain.sizes[-1], n)}


def digests(arrays: dict[str, Any]) -> dict[str, str]:
    """A digest of the bytes of each array."""
    found = {}
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def trained(ex: gc.Executor, workload: Workload, steps: int) -> dict[str, str]:
    """The digests of every array of the state, and of the losses, after some steps."""
    losses = np.array([ex.step(feeds) for feeds in batches(workload, steps)])
    return digests({**ex.snapshot(), "losses": losses})


def printed(make: Callable[[], gc.Executor], workload: Workload, steps: int) -> str:
    """One digest of all that training leaves, for another process to print."""
    found = trained(make(), workload, steps)
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()
