"""Weights of attention are computed again in the backward part, with the bits of the first time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.graph import Graph
from graphc.kernels import chains
from passes.dead_code import dead_code
from passes.recompute_attention import recompute_attention
from tests.passes.same import assert_preserved, differentiated


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "LEAST", 16)


def graph_of(steps: int = 5, returned: bool = False, **options: Any) -> Graph:
    """The gradients of a net with one attention."""
    net = gc.Net("net")
    x = net.input("x", (gc.N, steps, 4)) * net.parameter("w", (4,))
    if "mask" in options:
        options["mask"] = net.constant(options["mask"])
    out = gc.attention(x, gc.tanh(x), x, name="seen", **options)
    if returned:
        net.output("weights", net["seen.weights"])
    net.loss("loss", gc.mean(out * out))
    return dead_code(differentiated(net))


def clones(graph: Graph) -> set[str]:
    return {node.name for node in graph if node.name.endswith(".recomputed")}


@pytest.mark.parametrize("causal", [False, True])
def test_the_backward_part_reads_clones(causal: bool) -> None:
    """Those of all that is as large as the weights; queries and keys are kept."""
    before = graph_of(causal=causal)
    after = assert_preserved(recompute_attention, before, 3)
    names = "seen.products", "seen.scores", "seen.weights"
    assert clones(after) == {f"{name}.recomputed" for name in names}
    assert [after[user].name for user in after.users["seen.weights"]] == ["seen"]


def test_a_mask_is_added_again() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 5, 4)) * net.parameter("w", (4,))
    out = gc.attention(x, x, x, mask=net.input("mask", (gc.N, 5, 5)), name="seen")
    net.loss("loss", gc.mean(out * out))
    after = assert_preserved(recompute_attention, dead_code(differentiated(net)), 3)
    assert "seen.masked.recomputed" in clones(after)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(lambda: graph_of(steps=3), id="small"),
        pytest.param(lambda: graph_of(returned=True), id="returned"),
        pytest.param(lambda: graph_of(dropout=0.5), id="dropped"),
        pytest.param(lambda: graph_of(mask=np.zeros((5, 5), "float32")), id="masked alike"),
    ],
)
def test_others_stay(graph) -> None:  # type: ignore[no-untyped-def]
    """Weights that are small, a result, read by dropout, or masked alike in all matrices."""
    made = graph()
    assert recompute_attention(made) is made


def test_the_pass_may_be_left_out() -> None:
    """Then the weights of the forward part are kept for the backward part."""
    net = gc.Net("net")
    x = net.input("x", (gc.N, 40, 4)) * net.parameter("w", (4,))
    net.loss("loss", gc.mean(gc.attention(x, x, x)))
    options: dict[str, Any] = {"batch": 4, "optimizer": gc.SGD(lr=0.1), "backend": "numpy"}
    kept = gc.compile(net, passes=gc.passes.without("recompute_attention"), **options)
    assert kept.memory.arena > gc.compile(net, **options).memory.arena
