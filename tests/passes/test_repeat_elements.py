from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.op import Iteration
from graphc.ir.tensor_type import TensorType
from graphc.ops.functions import Tanh
from passes.dead_code import dead_code
from passes.repeat_elements import repeat_elements
from tests.passes.same import assert_preserved, differentiated


def gated(dtype: str = "float32") -> gc.Net:
    """A product, three functions of its elements, a product."""
    net = gc.Net("net", dtype=dtype)
    x, w = net.input("x", (gc.N, 4)), net.parameter("w", (4, 3))
    a = gc.matmul(x, w, name="a")
    s = gc.sigmoid(a, name="s")
    t = gc.tanh(a, name="t")
    h = gc.mul(s, t, name="h")
    net.loss("loss", gc.sum(gc.matmul(h, net.parameter("v", (3, 2)), name="scores"), name="loss"))
    return net


def clones(graph: Graph) -> list[str]:
    return [node.name for node in graph if node.recomputes]


def test_several_values_give_way_to_the_one_that_they_come_from() -> None:
    """`a` is kept, and not s and t; h is read by a product, and kept anyway."""
    before = dead_code(differentiated(gated()))
    after = repeat_elements(before)
    assert {name for name in clones(after) if "recomputed" in name} == {
        "s.recomputed",
        "t.recomputed",
    }
    for name in ("s.recomputed", "t.recomputed"):
        (late,) = after[name].inputs
        assert after[late].inputs[0] == "a"
    assert_preserved(repeat_elements, before, 5)


def test_one_value_is_kept_as_well_as_another() -> None:
    net = gc.Net("net")
    a = gc.matmul(net.input("x", (gc.N, 4)), net.parameter("w", (4, 3)), name="a")
    net.loss("loss", gc.sum(gc.tanh(a, name="t"), name="loss"))
    graph = dead_code(differentiated(net))
    assert repeat_elements(graph) is graph


@pytest.mark.one_in(3)
@pytest.mark.parametrize("activation", [gc.gelu, gc.silu, gc.mish])
def test_native_training_is_that_of_numpy(activation) -> None:  # type: ignore[no-untyped-def]
    """Values are computed again in kernels, and memory is saved."""
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 4))
    h = activation(gc.affine(x, 8))
    net.loss("loss", gc.mean(gc.affine(h, 3) ** 2))
    rows = np.random.default_rng(0).normal(size=(16, 4))
    losses = {}
    for backend in ("numpy", "native"):
        plan = gc.compile(net, batch=16, optimizer=gc.SGD(lr=0.1), backend=backend)
        assert clones(plan.programs["step"].graph)
        ex = gc.Executor(plan, seed=0)
        losses[backend] = [ex.step(x=rows) for _ in range(5)]
    np.testing.assert_allclose(losses["native"], losses["numpy"], rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_budget_that_does_not_bind_changes_nothing(backend: str) -> None:
    options = {"batch": 16, "optimizer": gc.SGD(lr=0.1), "backend": backend}
    free, bound = (gc.compile(gated(), budget=b, **options) for b in (None, 1_000_000))
    assert str(bound.programs["step"].graph) == str(free.programs["step"].graph)
    assert clones(bound.programs["step"].graph)


def test_a_longer_chain_is_looked_at_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def iteration(op: Tanh, ins: Sequence[TensorType]) -> Iteration:
        nonlocal looked
        looked += 1
        return "elements"

    def looks(length: int) -> int:
        nonlocal looked
        net = gc.Net("chain")
        h = gc.affine(net.input("x", (gc.N, 2)), 2)
        for _ in range(length):
            h = gc.tanh(h)
        net.loss("loss", gc.sum(h))
        before = looked
        gc.compile(net, batch=2, optimizer=gc.SGD(lr=0.1), backend="native")
        return looked - before

    monkeypatch.setattr(Tanh, "iteration", iteration)
    assert looks(200) < 3 * looks(100)


def test_it_may_be_left_out() -> None:
    def repeats(passes: gc.passes.PassList) -> bool:
        plan = gc.compile(gated(), batch=8, optimizer=gc.SGD(lr=0.1), passes=passes)
        return bool(clones(plan.programs["step"].graph))

    assert repeats(gc.passes.DEFAULT)
    assert not repeats(gc.passes.without("repeat_elements"))
