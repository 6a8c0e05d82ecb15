"""Memory against FLOPs."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphc as gc
from graphc.compiler.cost import program_cost
from graphc.compiler.remat.fit import least_total
from tests.compiler.remat.nets import SGD, deep, residual, tight
from tests.extras import needs


@pytest.mark.slow
def test_every_point_is_a_plan_that_a_budget_gives() -> None:
    kept = gc.compile(residual(6, 32), batch=128, optimizer=SGD, backend="numpy")
    curve = kept.memory.curve()
    assert (curve.name, curve.batch, curve.program) == ("residual", 128, "step")
    assert len(curve.points) > 4
    assert curve.points[0].total == kept.memory.total
    assert curve.points[0].nodes == 0
    assert curve.points[-1].total <= least_total(kept)
    for point, cheaper in zip(curve.points[1:], curve.points, strict=False):
        assert point.total < cheaper.total
        assert point.flops > cheaper.flops
    for point in curve.points[1::3]:
        plan = gc.compile(
            residual(6, 32), batch=128, optimizer=SGD, backend="numpy", budget=point.total
        )
        assert plan.memory.total <= point.total
        assert program_cost(plan.programs["step"], 128).flops <= point.flops * 1.02


@pytest.mark.slow
def test_it_is_that_of_the_net_whatever_the_budget_was() -> None:
    kept = gc.compile(residual(1, 16), batch=64, optimizer=SGD, backend="numpy")
    plan = gc.compile(residual(1, 16), batch=64, optimizer=SGD, backend="numpy", budget=tight(kept))
    assert plan.memory.curve() == kept.memory.curve()


def test_a_plan_that_computes_no_gradients_is_one_point() -> None:
    net = gc.Net("net")
    net.output("y", gc.affine(net.input("x", (gc.N, 8)), 8))
    curve = gc.compile(net, batch=64, backend="numpy").memory.curve()
    assert (curve.program, len(curve.points)) == ("grad", 1)


GOLDEN = """\
memory and FLOPs of 'deep' at N = 512, step
       total bytes    of them arena              FLOPs     more       recomputed
         2,961,536        1,857,600        150,376,728    +0.0%          0 nodes
         2,830,464        1,726,528        154,669,336    +2.9%           1 node
         2,699,392        1,595,456        158,961,944    +5.7%          2 nodes
         2,568,320        1,464,384        163,254,552    +8.6%          3 nodes
         2,437,248        1,333,312        167,547,160   +11.4%          4 nodes
         2,306,176        1,202,240        171,839,768   +14.3%          5 nodes
         2,175,104        1,071,168        176,132,376   +17.1%          6 nodes
         2,164,864        1,060,928        180,424,984   +20.0%          7 nodes"""


@pytest.mark.slow
def test_text() -> None:
    plan = gc.compile(deep(12, 64), batch=512, optimizer=SGD, backend="numpy")
    assert str(plan.memory.curve()) == GOLDEN


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_picture(tmp_path: Path, suffix: str) -> None:
    needs("matplotlib")
    plan = gc.compile(deep(3, 32), batch=128, optimizer=SGD, backend="numpy")
    path = plan.memory.curve().plot(tmp_path / f"curve.{suffix}")
    start = path.read_bytes()[:200]
    assert start.startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")
