"""The bound is as wide as a graph's own rounding, and points near kinks are not judged."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.tools.fuzz.bound import KINK, RUNS, TINY, Meant
from tests.tools.fuzz.case import Case, Event
from tests.tools.fuzz.check import judge
from tests.tools.fuzz.meaning import Meaning


def case(net: gc.Net, kind: str = "infer") -> Case:
    return Case(net.graph(), 4, (Event(kind, 4),))


def meant(net: gc.Net) -> Meant:
    found = Meant(Meaning(case(net)))
    found.widen(RUNS[0])
    return found


def start(dtype: str = "float64") -> tuple[gc.Net, gc.Value]:
    net = gc.Net("net", dtype=dtype)
    return net, net.input("x", (gc.N, 3))


def test_numbers_that_are_only_moved_must_keep_every_bit() -> None:
    net, x = start("float32")
    moved = gc.relu(gc.concat([x[:, 1:], -x], axis=1))
    net.output("moved", gc.max(gc.reshape(moved, (gc.N, 5, 1)), 2))
    assert meant(net).bound(0, "output moved").max() == pytest.approx(TINY)


@pytest.mark.parametrize("large", [1.0, 1e4, 1e8])
def test_cancellation_widens_it(large: float) -> None:
    net, x = start()
    net.output("y", (x + large) - large)
    found = meant(net)
    rounding = float(np.spacing(large))
    limit = found.bound(0, "output y")
    assert (limit > rounding / 2).all()
    assert (limit < 200 * rounding).all()
    wanted = np.asarray(found.exact.results[0]["output y"], float)
    assert found.wrong([{"output y": wanted + rounding / 2}]) is None
    assert found.wrong([{"output y": wanted + 1000 * rounding}]) is not None


def test_a_sum_whose_terms_cancel_exactly_is_as_wide_as_its_terms() -> None:
    """The gradient through a batchnorm of one feature by two rows is rounding alone."""
    net, x = start()
    net.loss("loss", gc.sum(gc.batchnorm(gc.affine(x, 2)) * 1e3))
    found = Meant(Meaning(case(net, "train")))
    found.widen(RUNS[0])
    exact = np.abs(found.exact.results[0]["gradient affine_1.weight"]).max()
    limit = found.bound(0, "gradient affine_1.weight").max()
    assert exact < 1e-14 < limit < 1e-8


@pytest.mark.parametrize("draw", range(4))
def test_terms_that_cancel_within_an_op_widen_it(draw: int) -> None:
    """The closed form of a batchnorm's gradient by two rows loses five digits of them."""
    net, x = start()
    net.loss("loss", gc.sum(gc.batchnorm(x) ** 3))
    found = Meant(Meaning(Case(net.graph(), 2, (Event("train", 2),), wrt=("x",), draw=draw)))
    found.widen(RUNS[0])
    exact = np.abs(found.exact.results[0]["gradient x"]).max()
    assert 2e-11 < found.bound(0, "gradient x").max() / exact < 1e-8


def test_more_runs_only_widen_it() -> None:
    net, x = start("float32")
    net.output("y", gc.tanh(gc.affine(x, 5)))
    found = meant(net)
    before = found.bound(0, "output y")
    found.widen(8)
    assert (found.bound(0, "output y") >= before).all()


@pytest.mark.parametrize("near", [0.0, KINK / 100, 1.0])
def test_a_point_near_a_kink_is_drawn_again(near: float) -> None:
    """Exactly on it is no matter of rounding."""
    net, x = start()
    net.output("y", gc.relu(x * near))
    verdict = judge(case(net))
    assert verdict.kind == ("near a kink" if 0 < near < KINK else "right")
    assert (verdict.redrawn > 0) == (0 < near < KINK)


def test_choices_that_rounding_may_decide_are_not_judged() -> None:
    """x * p - p * x is 0 where nothing rounds, and whatever it rounds to elsewhere."""
    net, x = start()
    p = net.parameter("p", (3,), init=gc.Normal(1.0))
    net.output("y", gc.greater(gc.exp(x * p) - gc.exp(p * x), 0.0))
    assert judge(case(net)).kind == "near a kink"


def test_cotangents_that_a_loop_rounds_to_0_are_no_kink() -> None:
    """That of a relu at rest is 0, which is near the least that is handed on."""
    net, _ = start()
    w = net.parameter("w", (3,), init=gc.Normal(1.0))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        new = gc.relu(h * w - 50.0)
        return x, new + gc.tanh(x)

    xs = net.input("xs", (gc.N, 4, 3))
    (_, last) = gc.scan(step, [xs], [xs[:, 0]])
    net.loss("loss", gc.sum(last))
    verdict = judge(case(net, "train"))
    assert (verdict.kind, verdict.redrawn) == ("right", 0), verdict.message
