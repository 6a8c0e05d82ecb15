"""Forward, backward, update and step: against each other and against the reference rules."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.reference import evaluate, next_state

ROOT = Path(__file__).parents[2]
Array = np.ndarray[Any, Any]
SGD = gc.SGD(lr=0.1, momentum=0.9, weight_decay=0.01)
OPTIMIZERS = [
    SGD,
    gc.SGD(lr=0.1),
    gc.Adam(lr=0.01, clip_norm=0.5),
    gc.AdamW(schedule=gc.Step(2, 0.5)),
]


def classifier(dtype: str = "float64") -> gc.Net:
    net = gc.Net("classifier", dtype=dtype)
    x = net.input("x", (gc.N, 6))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.affine(x, 8, name="first")
    h = gc.dropout(gc.relu(gc.batchnorm(h, name="bn")), keep_prob=0.8, name="drop")
    h = h + gc.affine(h, 8, name="residual")
    scores = gc.affine(h, 4, name="second")
    net.output("scores", scores)
    net.output("probabilities", gc.softmax(scores))
    net.loss("loss", gc.softmax_loss(scores, y))
    net.loss("reg", 0.001 * gc.sum(net["first.weight"] * net["first.weight"]))
    return net


def batch(n: int = 8, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((n, 6)), "y": rng.integers(0, 4, n)}


def executor(optimizer: Any = SGD, **options: Any) -> gc.Executor:
    return gc.Executor(gc.compile(classifier(), batch=8, optimizer=optimizer, **options), seed=3)


def copied(state: gc.State) -> dict[str, Array]:
    return {name: np.array(state[name]) for name in state}


def assert_same(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance, err_msg=name)


# ---------------------------------------------------------------- the steady step


def test_a_steady_step_goes_through_the_files_that_the_docs_name() -> None:
    page = (ROOT / "docs/how_it_works.md").read_text()
    way = page.split("## The way of one fed array")[1].split("\nThen `_step` goes on.")[0]
    *python, machine_code = re.findall(r"^\d\. `(.*?)`", way, re.M)
    net = gc.Net("small")
    x, y = net.input("x", (gc.N, 6)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(x, 4), y))
    ex = gc.Executor(gc.compile(net, batch=8, optimizer=SGD, backend="native"))
    feeds = {"x": np.ones((8, 6), np.float32), "y": np.zeros(8, np.int64)}
    steps = [ex.step(feeds) for _ in range(2)]
    entered: dict[str, None] = {}
    checks: set[str] = set()

    def note(frame: FrameType, event: str, called: Any) -> None:
        file = Path(frame.f_code.co_filename)
        ours = frame.f_code.co_name != "poison"  # that only tests call
        if event == "call" and ours and file.is_relative_to(ROOT / "graphc"):
            entered[file.relative_to(ROOT).as_posix()] = None
        if event == "c_call":
            checks.add(called.__name__)

    sys.setprofile(note)
    try:
        loss = ex.step(**feeds)
    finally:
        sys.setprofile(None)
    assert loss < steps[1]
    assert list(entered) == python and len(python) == 3
    assert "check_feeds" in checks and '"check_feeds"' in (ROOT / machine_code).read_text()


# ---------------------------------------------------------------- against the reference rules


@pytest.mark.one_in(3)
@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("train", [False, True])
def test_forward_is_what_the_declared_layers_mean(n: int, train: bool) -> None:
    ex, feeds = executor(), batch(n)
    want = evaluate(ex.plan.declared, feeds, copied(ex.state), n, train=train)
    got = ex.forward(feeds, train=train)
    assert_same(got, {name: want[node] for name, node in ex.plan.declared.outputs.items()})


def test_backward_is_what_the_gradient_nodes_mean() -> None:
    ex, feeds = executor(), batch()
    graph = next(r.graph for r in ex.plan.graphs["grad"] if r.name == "backward")
    want = evaluate(graph, feeds, copied(ex.state), 8)
    ex.forward(feeds, train=True)
    assert_same(ex.backward(), {name: want[node] for name, node in graph.gradients.items()})


@pytest.mark.one_in(6)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_steps_follow_the_update_nodes(optimizer: Any) -> None:
    ex = executor(optimizer)
    graph = next(r.graph for r in ex.plan.graphs["step"] if r.name == "update")
    state = copied(ex.state)
    for i in range(4):
        values = evaluate(graph, batch(seed=i), state, 8)
        state = next_state(graph, values, state)
        loss = ex.step(batch(seed=i))
        assert loss == pytest.approx(sum(values[graph.outputs[name]] for name in graph.losses))
    assert_same(copied(ex.state), state, 1e-10)


@pytest.mark.one_in(6)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_a_step_is_forward_backward_update(optimizer: Any) -> None:
    whole, parts = executor(optimizer), executor(optimizer)
    for i in range(4):
        loss = whole.step(batch(seed=i))
        out = parts.forward(batch(seed=i), train=True)
        parts.backward()
        parts.update()
        assert out["loss"] + out["reg"] == pytest.approx(loss, abs=1e-12)
    assert_same(copied(whole.state), copied(parts.state))


def test_gradients_that_are_given_are_those_that_update() -> None:
    one, other = executor(), executor()
    one.forward(batch(), train=True)
    gradients = one.backward()
    one.update()
    other.forward(batch(), train=True)
    other.update({name: 1.0 * gradient for name, gradient in gradients.items()})
    assert_same(copied(one.state), copied(other.state), 0)


# ---------------------------------------------------------------- cotangents


def test_cotangents_differentiate_outputs() -> None:
    """d(sum(c * scores)) by the losses of another net that says the same."""
    c = np.random.default_rng(5).standard_normal((8, 4))
    net = classifier()
    weights = net.input("c", (gc.N, 4))
    net.loss("weighted", gc.sum(weights * net["second"]))
    direct = gc.Executor(gc.compile(net, batch=8, losses="weighted"), seed=3)
    direct.forward(batch() | {"c": c}, train=True)
    ex = executor()
    ex.forward(batch(), train=True)
    draws = int(ex.state["draws"])
    assert_same(ex.backward(scores=c), direct.backward())
    assert int(ex.state["draws"]) == draws
    ex.forward(batch(), train=True)  # the next run has a mask of its own again
    direct.forward(batch() | {"c": c}, train=True)
    assert_same(ex.backward(scores=c), direct.backward())


def test_cotangents_of_two_outputs_add_up() -> None:
    ex = executor()
    one, two = np.ones((8, 4)), np.full((8, 4), 0.5)
    ex.forward(batch(), train=True)
    both = ex.backward(scores=one, probabilities=two)
    first, second = ex.backward(scores=one), ex.backward(probabilities=two)
    assert_same(both, {name: first[name] + second[name] for name in both}, 1e-10)


def test_the_losses_can_be_differentiated_after_cotangents() -> None:
    ex, other = executor(), executor()
    for e in (ex, other):
        e.forward(batch(), train=True)
    ex.backward(scores=np.ones((8, 4)))
    assert_same(ex.backward(), other.backward(), 0)


def test_a_net_without_losses_takes_cotangents() -> None:
    net = gc.Net(dtype="float64")
    x = net.input("x", (gc.N, 3))
    net.output("out", gc.affine(x, 2, name="a"))
    ex = gc.Executor(gc.compile(net, batch=4))
    feed, d = np.arange(12.0).reshape(4, 3), np.ones((4, 2))
    ex.forward(x=feed, train=True)
    got = ex.backward(out=d)
    assert_same(got, {"a.weight": feed.T @ d, "a.bias": d.sum(axis=0)})


# ---------------------------------------------------------------- results and their memory


def test_results_are_copies_unless_views_are_asked_for() -> None:
    ex = executor()
    kept, view = ex.forward(batch())["scores"], ex.forward(batch(), copy=False)["scores"]
    before = kept.copy()
    assert np.array_equal(view, kept)
    ex.forward(batch(seed=1))
    assert np.array_equal(kept, before)
    assert np.array_equal(view, ex.values["scores"])


def test_values_are_those_of_the_last_run() -> None:
    ex = executor(outputs=["scores", "bn"])
    out = ex.forward(batch())
    assert ex.values.keys() == out.keys() == {"scores", "bn", "loss", "reg"}
    assert np.array_equal(ex.values["bn"], out["bn"])
    loss = ex.step(batch())
    assert float(ex.values["loss"] + ex.values["reg"]) == pytest.approx(loss, abs=1e-12)
    with pytest.raises(ValueError):
        ex.values["bn"][...] = 0


def test_labels_may_be_missing_at_inference() -> None:
    ex = executor()
    with_labels, without = ex.forward(batch()), ex.forward(x=batch()["x"])
    assert without.keys() == {"scores", "probabilities", "reg"}
    assert_same(without, {name: with_labels[name] for name in without}, 0)
