"""Every kernel, as calls of NumPy, means what the interpreter makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.kernels.program import PREPARE
from tests.backends.numpy.against_oracle import Compared
from tests.tools.fuzz.case import Case, Event
from tests.tools.fuzz.draw import Wishes, draw

WISHES = Wishes(native=0.0, interpreted=0.0, cut=0.0)


def small_parts(patch: pytest.MonkeyPatch) -> None:
    """Cut every kernel that can be cut."""
    for name, size in (
        ("body.PART", 6),
        ("body.PRODUCT_PART", 6),
        ("body.PRODUCT_ROWS", 1),
        ("products.BLOCK", 40),
    ):
        patch.setattr(f"graphc.backends.numpy.{name}", size)


def compared(plan: Plan, case: Case, n: int) -> int:
    """Run all programs of a plan on the same state, and return how many kernels were compared."""
    kernels = 0
    feeds = dict(case.feeds(0))
    state: Mapping[str, Array] = {name: np.array(array) for name, array in case.state().items()}
    gradients: dict[str, Array] = {}
    for name in (PREPARE, "infer", "grad", "step", "accumulate", "apply"):
        program = plan.programs.get(name)
        if program is None:
            continue
        given = {f"gradient:{wrt}": array for wrt, array in gradients.items()}
        run = Compared(program, 1 if name in (PREPARE, "apply") else n, state)
        found = run.run({**feeds, **given})
        if name == PREPARE:
            state = {**state, **found}
        gradients = run.gradient() or gradients
        kernels += run.kernels
    return kernels


@pytest.mark.one_in(15)
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("parts", ["usual", "small"])
def test_kernels_of_random_nets(seed: int, parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if parts == "small":
        small_parts(monkeypatch)
    case = draw(seed, WISHES)
    n = case.events[0].n if case.events[0].kind != "evaluate" else case.batch
    n = min(n, case.batch)
    case = replace(case, events=(Event("step", n),), shards=1, again=False, tight=False)
    compared(case.plan, case, n)


def gathers() -> gc.Net:
    """Borders with a value, negative steps, given indices, pooling."""
    net = gc.Net("gathers", dtype="float64")
    x, rows = net.input("x", (gc.N, 2, 6, 5)), net.input("rows", (gc.N, 3), dtype="int64")
    h = gc.tanh(gc.pad(x, (0, 0, 1, 2), 0.5)) + 0.0
    h = gc.max_pool(h, 2, stride=1)
    h = gc.tanh(h[:, :, ::-2, ::-1] * 2.0)
    table = net.parameter("table", (7, 4))
    taken = gc.tanh(gc.gather(table, rows, 0))
    net.output("h", h)
    net.loss("loss", gc.mean(h * h) + gc.mean(taken * taken))
    return net


def convolutions(**how: Any) -> Callable[[], gc.Net]:
    """Two convolutions, so that images and weights have gradients."""

    def build() -> gc.Net:
        net = gc.Net("convolutions", dtype="float64")
        h = gc.tanh(gc.conv2d(net.input("x", (gc.N, 4, 7, 6)), 4, 1))
        h = gc.tanh(gc.conv2d(h, 8, (3, 2), **how))
        net.output("h", h)
        net.loss("loss", gc.mean(h * h))
        return net

    return build


def products() -> gc.Net:
    """Products of stacks of matrices, with each factor transposed, and sums of both axes."""
    net = gc.Net("products", dtype="float64")
    x = gc.reshape(gc.tanh(gc.affine(net.input("x", (gc.N, 12)), 24)), (gc.N, 2, 3, 4))
    scores = gc.matmul(x, gc.transpose(x, (0, 1, 3, 2)))
    h = gc.matmul(gc.softmax(scores), x)
    net.output("h", gc.sum(h, 0))
    net.loss("loss", gc.mean(h * h))
    return net


NETS: dict[str, Callable[[], gc.Net]] = {
    "gathers": gathers,
    "products": products,
    "plain": convolutions(),
    "padded": convolutions(padding=1),
    "strided": convolutions(stride=2, padding=(1, 0)),
    "dilated": convolutions(dilation=(2, 1), padding=1),
    "grouped": convolutions(groups=2, padding=1),
    "depthwise": convolutions(groups=4, padding=1, stride=2),
}


@pytest.mark.one_in(19)
@pytest.mark.parametrize("parts", ["usual", "small"])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("optimizer", [gc.SGD(0.1), gc.Adam(accumulate=2)], ids=["sgd", "summed"])
def test_kernels_of(
    net: Callable[[], gc.Net], parts: str, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parts == "small":
        small_parts(monkeypatch)
    for n in (5, 1, 3):
        case = Case(net().graph(), 5, (Event("step", n),), optimizer)
        assert compared(case.plan, case, n) > 5


def test_what_is_cleared_is_read_before() -> None:
    """A kernel that stores a number where its other steps read does so when they have read."""
    net = gc.Net("net", dtype="float64")
    net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 3)), 2, name="a") ** 2))
    case = Case(net.graph(), 4, (Event("step", 4),), gc.SGD(1.0, accumulate=2))
    state = {name: np.array(array) for name, array in case.state().items()}
    state["accumulated"][...] = 2
    state["a.weight.accumulated"][...] = 3.0
    before = state["a.weight"].copy()
    rate = float(state["hyper.lr"])
    Compared(case.plan.programs["apply"], 1, state).run({})
    np.testing.assert_allclose(state["a.weight"], before - rate * 3.0 / 2)
    assert not state["a.weight.accumulated"].any()


def test_no_batch_needs_more_scratch_than_the_largest() -> None:
    """Parts of some columns are as wide for few rows as for many."""
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 2000))
    column = gc.sum(gc.exp(x) * x, 0)
    net.output("y", gc.exp(0.001 * gc.sqrt(column**2 + 1.0)) + column)
    case = Case(net.graph(), 33, (Event("infer", 33),))
    for n in (33, 32, 17, 8, 1):
        assert compared(case.plan, case, n)
