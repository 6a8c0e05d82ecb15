"""Nets that multiply in blocks train to the same parameters, whatever computes the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native.target import TILES, WIDTHS, host
from graphc.ir.tensor_type import shape_at
from passes.set_precision import Precision
from tests.backends.c.trained import digest, executor_of, trained
from tests.backends.native.shared_runs import shared_runs
from tests.extras import missing
from tests.tools.fuzz.bits import without_tiles

pytestmark = pytest.mark.needs("native")

ROWS, STEPS = 20, 100
BATCHES = (ROWS, ROWS, 7, 1)
"""The rows of steps, in turn."""


def mlp() -> gc.Net:
    """Affine layers with batchnorm and dropout; sums are of 1, 2 and 3 blocks, and of a part."""
    net = gc.Net("mlp")
    h = net.input("x", (gc.N, 70))
    for width in (33, 64):
        h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(h, width))), keep_prob=0.8)
    return scored(net, h)


def lstm() -> gc.Net:
    """A loop, whose steps multiply."""
    net = gc.Net("lstm")
    h, _ = gc.lstm(net.input("x", (gc.N, 5, 14)), 35)
    return scored(net, h[:, -1])


def attention() -> gc.Net:
    """Stacks of products, of values that change at each step."""
    net = gc.Net("attention")
    x = gc.affine(net.input("x", (gc.N, 7, 10)), 36, axis=-1)
    return scored(net, gc.layernorm(x + gc.multi_head_attention(x, 2)))


def scored(net: gc.Net, h: gc.Value) -> gc.Net:
    """The net with scores and a loss."""
    scores = net.output("scores", gc.affine(h, 5))
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


def fed(net: gc.Net) -> list[dict[str, Any]]:
    """Batches of random rows, the same for each run."""
    rng, shape = np.random.default_rng(4), shape_at(net["x"].type.shape, 1)[1:]
    rows = (BATCHES[step % len(BATCHES)] for step in range(STEPS))
    return [{"x": rng.standard_normal((n, *shape)), "y": rng.integers(0, 5, n)} for n in rows]


def trained_by(
    net: Callable[[], gc.Net], precision: Precision = "bf16_blocks", **options: Any
) -> str:
    """The SHA-256 of the parameters after all steps, each by Adam."""
    declared = net()
    ex = executor_of(declared, ROWS, precision={"*": precision}, **options)
    return digest(ex, trained(ex, fed(declared)))


def ways(net: Callable[[], gc.Net]) -> Iterator[tuple[str, str]]:
    """What computes the blocks, and the digest that it leaves."""
    with pytest.MonkeyPatch.context() as patch, shared_runs(2):
        for bits in WIDTHS:
            if bits <= host().bits:
                patch.setenv("GRAPHC_VECTOR_BITS", str(bits))
                for threads in (1, 2):
                    yield f"{bits} bits, {threads} threads", trained_by(net, threads=threads)
            patch.delenv("GRAPHC_VECTOR_BITS", raising=False)
    if host().words["blocks"] == TILES:
        with without_tiles():
            yield "multiply-adds", trained_by(net)
    if missing("c") is None:
        yield "C", trained_by(net, backend="c")


@pytest.mark.slow
@pytest.mark.parametrize("net", [mlp, lstm, attention], ids=lambda net: net.__name__)
def test_a_hundred_steps_end_at_the_same_parameters(net: Callable[[], gc.Net]) -> None:
    found = dict(ways(net))
    assert len(found) >= 2
    assert len({*found.values()}) == 1, found
    assert trained_by(net, "bf16") not in found.values()
