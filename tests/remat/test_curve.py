"""Memory against FLOPs."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphc as gc
from graphc.profile.cost import program_cost
from graphc.remat.fit import least_total
from tests.remat.nets import SGD, deep, residual, tight


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


def test_it_is_that_of_the_net_whatever_the_budget_was() -> None:
    kept = gc.compile(residual(3, 16), batch=64, optimizer=SGD, backend="numpy")
    plan = gc.compile(residual(3, 16), batch=64, optimizer=SGD, backend="numpy", budget=tight(kept))
    assert plan.memory.curve() == kept.memory.curve()


def test_a_plan_that_does_not_train_is_one_point() -> None:
    net = gc.Net("net")
    net.output("y", gc.affine(net.input("x", (gc.N, 8)), 8))
    curve = gc.compile(net, batch=64, backend="numpy").memory.curve()
    assert (curve.program, len(curve.points)) == ("infer", 1)


GOLDEN = """\
"""


def test_text() -> None:
    plan = gc.compile(deep(12, 64), batch=512, optimizer=SGD, backend="numpy")
    assert str(plan.memory.curve()) == GOLDEN


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_picture(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    plan = gc.compile(deep(6, 32), batch=128, optimizer=SGD, backend="numpy")
    path = plan.memory.curve().plot(tmp_path / f"curve.{suffix}")
    start = path.read_bytes()[:200]
    assert start.startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")
