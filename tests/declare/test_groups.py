"""Groups of parameters: rates, decay and what is frozen, by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs
from tests.updates import run

RNG = np.random.default_rng(11)
W = {"body.weight": RNG.standard_normal((3, 4)), "head.weight": RNG.standard_normal((4, 2))}
STEPS = [{k: RNG.standard_normal(v.shape) for k, v in W.items()} for _ in range(5)]
HEAD = gc.Group("head.*", lr=1.0, weight_decay=0.0)
BACKENDS = ("numpy", "native")


def net() -> gc.Net:
    """Weights that lie side by side and fill their places, so that updates could be merged."""
    net = gc.Net("net", dtype="float64")
    x, y = net.input("x", (gc.N, 16)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.affine(x, 8, name="body/one"))
    h = gc.relu(gc.affine(h, 8, name="body/two"))
    net.loss("loss", gc.softmax_loss(gc.affine(h, 8, name="head"), y))
    return net


def feeds(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((6, 16)), "y": rng.integers(0, 8, 6)}


def test_rates_and_decays_of_torch_s_groups() -> None:
    torch = needs("torch")
    optimizer = gc.SGD(0.1, 0.9, weight_decay=0.05, groups=[HEAD])
    after = run(optimizer, W, STEPS)
    theirs = {name: torch.tensor(w, requires_grad=True) for name, w in W.items()}
    groups = [
        {"params": [theirs["body.weight"]], "lr": 0.1, "weight_decay": 0.05},
        {"params": [theirs["head.weight"]], "lr": 1.0, "weight_decay": 0.0},
    ]
    made = torch.optim.SGD(groups, momentum=0.9)
    for gradients in STEPS:
        for name, w in theirs.items():
            w.grad = torch.tensor(gradients[name])
        made.step()
    for name, w in theirs.items():
        np.testing.assert_allclose(after[name], w.detach(), rtol=1e-12)


def test_the_schedule_is_on_every_rate() -> None:
    optimizer = gc.SGD(0.1, schedule=gc.Step(1, 0.5), groups=[HEAD])
    after = run(optimizer, W, STEPS[:2])
    for name, lr in (("body.weight", 0.1), ("head.weight", 1.0)):
        wanted = W[name] - lr * STEPS[0][name] - lr * 0.5 * STEPS[1][name]
        np.testing.assert_allclose(after[name], wanted, rtol=1e-12)


def test_the_first_group_that_matches_holds() -> None:
    groups = [gc.Group("head.weight", lr=1.0), gc.Group(("*.weight", "*.bias"), lr=0.5)]
    after = run(gc.SGD(0.1, groups=groups), W, STEPS[:1])
    for name, lr in (("body.weight", 0.5), ("head.weight", 1.0)):
        np.testing.assert_allclose(after[name], W[name] - lr * STEPS[0][name], rtol=1e-12)


def test_decay_of_a_group_holds_for_biases_too() -> None:
    values = {"a.bias": np.ones(3), "b.bias": np.ones(3)}
    zeros = {name: np.zeros(3) for name in values}
    groups = [gc.Group("a.*", weight_decay=0.2)]
    after = run(gc.SGD(0.5, weight_decay=0.1, groups=groups), values, [zeros])
    np.testing.assert_allclose(after["a.bias"], 0.9)
    np.testing.assert_allclose(after["b.bias"], 1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_with_other_rates_are_not_updated_as_one(backend: str) -> None:
    """body/one, body/two and head lie side by side, and two weights are alike in shape."""
    optimizer = gc.Adam(0.01, groups=[gc.Group("body/two.*", lr=0.5)])
    plan = gc.compile(net(), batch=6, optimizer=optimizer, backend=backend)
    ex = gc.Executor(plan, seed=1)
    before = ex.snapshot()
    ex.step(feeds(0))
    for name in ex.parameters:  # Adam's first step is as long as the rate, whatever the gradient
        moved = np.abs(ex.parameters[name] - before[name]).max()
        assert moved == pytest.approx(0.5 if name.startswith("body/two") else 0.01, rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_frozen_parameters_stay_and_cost_nothing(backend: str) -> None:
    optimizer = gc.SGD(0.1, 0.9, clip_norm=0.01, groups=[gc.Group("body/*", frozen=True)])
    plan = gc.compile(net(), batch=6, optimizer=optimizer, backend=backend)
    ex = gc.Executor(plan, seed=2)
    before = ex.snapshot()
    assert [name for name in before if name.endswith(".velocity")] == [
        "head.weight.velocity",
        "head.bias.velocity",
    ]
    ex.forward(feeds(0), train=True)
    gradients = ex.backward()
    assert set(gradients) == {"head.weight", "head.bias"}
    norm = np.sqrt(sum((g * g).sum() for g in gradients.values()))
    ex.step(feeds(0))
    for name, old in before.items():
        if name.startswith("body/"):
            np.testing.assert_array_equal(ex.state[name], old)
    for name, g in gradients.items():  # clipped by the norm of what is trained
        wanted = before[name] - 0.1 * g * 0.01 / norm
        np.testing.assert_allclose(ex.state[name], wanted, rtol=1e-9)
    ex.forward(feeds(0), train=True)
    ex.backward()
    ex.update()
    assert ex.state["updates"] == 2


def test_frozen_parameters_have_no_sums() -> None:
    optimizer = gc.SGD(0.1, accumulate=2, groups=[gc.Group("body/*", frozen=True)])
    ex = gc.Executor(gc.compile(net(), batch=6, optimizer=optimizer))
    assert {n for n in ex.state if n.endswith(".accumulated")} == {
        "head.weight.accumulated",
        "head.bias.accumulated",
    }
    ex.step(feeds(0))
    ex.step(feeds(1))
    assert ex.state["updates"] == 1


def test_a_gradient_asked_for_by_name_is_there_though_frozen() -> None:
    frozen = gc.SGD(0.1, groups=[gc.Group("head.*", frozen=True)])
    plan = gc.compile(net(), batch=6, optimizer=frozen, wrt=["body/one.weight", "head.weight"])
    ex = gc.Executor(plan)
    before = ex.snapshot()
    ex.forward(feeds(0), train=True)
    assert set(ex.backward()) == {"body/one.weight", "head.weight"}
    ex.step(feeds(0))
    np.testing.assert_array_equal(ex.parameters["head.weight"], before["head.weight"])
    assert not np.array_equal(ex.parameters["body/one.weight"], before["body/one.weight"])


def test_rates_are_set_between_steps_and_saved(tmp_path: Path) -> None:
    optimizer = gc.SGD(0.1, groups=[gc.Group(("head.*", "body/two.*"), lr=0.2)])
    ex = gc.Executor(gc.compile(net(), batch=6, optimizer=optimizer), seed=3)
    assert dict(ex.hyper) == {"lr": 0.1, "lr.head.*,body/two.*": 0.2}
    ex.hyper["lr.head.*,body/two.*"] = 0.0
    before = ex.snapshot()
    ex.step(feeds(0))
    for name in ex.parameters:
        stays = name.startswith(("head", "body/two"))
        assert np.array_equal(ex.parameters[name], before[name]) == stays
    again = gc.load(gc.save(tmp_path / "groups.gc", ex))
    assert again.plan.optimizer == optimizer
    twin = pickle.loads(pickle.dumps(ex))
    loss = ex.step(feeds(1))
    for one in (again, twin):
        assert one.hyper["lr.head.*,body/two.*"] == 0.0
        assert one.step(feeds(1)) == pytest.approx(loss, rel=1e-12)


def test_thawing_goes_on_with_all_parameters(tmp_path: Path) -> None:
    frozen = gc.SGD(0.1, groups=[gc.Group("body/*", frozen=True)])
    ex = gc.Executor(gc.compile(net(), batch=6, optimizer=frozen), seed=4)
    ex.step(feeds(0))
    thawed = gc.load(gc.save(tmp_path / "frozen.gc", ex), optimizer=gc.SGD(0.1))
    before = thawed.snapshot()
    thawed.step(feeds(1))
    assert not np.array_equal(thawed.parameters["body/one.weight"], before["body/one.weight"])


@pytest.mark.parametrize(
    ("groups", "sentence", "hint"),
    [
        ([gc.Group("haed.*", lr=1.0)], "SGD: no parameter is in the group 'haed.*'", "'head."),
        (
            [gc.Group("*", lr=1.0), gc.Group("head.*", lr=2.0)],
            "SGD: no parameter is in the group 'head.*'",
            "earlier groups match",
        ),
        ([gc.Group("*", frozen=True)], "every parameter of net 'net' that could", "freeze a part"),
    ],
)
def test_groups_of_nothing_are_refused(groups: list[gc.Group], sentence: str, hint: str) -> None:
    with pytest.raises(gc.GraphError) as caught:
        gc.compile(net(), batch=6, optimizer=gc.SGD(0.1, groups=groups))
    assert caught.value.sentence.startswith(sentence)
    assert hint in caught.value.hint
    assert caught.value.loc is not None
    assert caught.value.loc.file == __file__
