"""The loss of all rows does not depend on how they are cut: into batches, shards or ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.distributed.communicator import Communicator
from graphc.runtime.distributed.loopback import run_ranks

Array = np.ndarray[Any, Any]
ROWS, CLASSES = 40, 4
CLASS_WEIGHT = np.array([1.0, 2.0, 5.0, 0.5])


def data() -> dict[str, Array]:
    """Whole shards without any weight, and whole shards whose labels are ignored."""
    rng = np.random.default_rng(0)
    found = {
        "x": rng.normal(size=(ROWS, 3)),
        "y": rng.integers(0, CLASSES, ROWS),
        "w": rng.uniform(size=ROWS),
        "places": rng.integers(0, CLASSES, (ROWS, 3)),
        "t": rng.normal(size=(ROWS, CLASSES)),
        "sign": rng.choice([-1.0, 1.0], ROWS),
    }
    found["w"][:11] = 0
    found["y"][5:25] = 1
    found["places"][20:34] = 1
    return found


DATA = data()

Build = Callable[[gc.Net, gc.Value, gc.Value], gc.Value]


def labels(net: gc.Net) -> gc.Value:
    return net.input("y", (gc.N,), dtype="int64")


def of_places(net: gc.Net, scores: gc.Value, weight: gc.Value) -> gc.Value:
    """Three labels a row."""
    places = gc.reshape(scores, (gc.N, CLASSES, 1)) * net.constant(np.array([1.0, 2.0, 3.0]))
    y = net.input("places", (gc.N, 3), dtype="int64")
    each = gc.reshape(weight, (gc.N, 1)) + net.constant(np.ones(3))
    return gc.softmax_loss(places, y, weight=each, class_weight=CLASS_WEIGHT, ignore=1)


LOSSES: dict[str, Build] = {
    "weights": lambda net, s, w: gc.softmax_loss(s, labels(net), weight=w),
    "classes": lambda net, s, w: gc.softmax_loss(s, labels(net), class_weight=CLASS_WEIGHT),
    "ignored": lambda net, s, w: gc.nll_loss(gc.log_softmax(s), labels(net), ignore=1),
    "all of them": lambda net, s, w: gc.softmax_loss(
        s, labels(net), weight=w, class_weight=CLASS_WEIGHT, ignore=2
    ),
    "places": of_places,
    "margin": lambda net, s, w: 3 * gc.svm_loss(s, labels(net), weight=w) + gc.mean(net["f.bias"]),
    "cosine": lambda net, s, w: gc.cosine_loss(
        s, net.input("t", (gc.N, CLASSES)), net.input("sign", (gc.N,)), weight=w
    ),
    "computed weights": lambda net, s, w: gc.softmax_loss(s, labels(net), weight=w * w + 0.1),
    "mean": lambda net, s, w: gc.mse_loss(s, net.input("t", (gc.N, CLASSES))),
    "sum": lambda net, s, w: gc.svm_loss(s, labels(net), weight=w, reduction="sum"),
    "plain sum": lambda net, s, w: 0.5 * gc.sum(s * s),
}


def net_of(*names: str) -> tuple[gc.Net, dict[str, Array]]:
    """Each loss by itself, and what the net is fed."""
    net = gc.Net("whole", dtype="float64")
    x, w = net.input("x", (gc.N, 3)), net.input("w", (gc.N,))
    for name in names:
        scores = gc.affine(x, CLASSES, name="f" if len(names) == 1 else f"f{name}")
        net.loss(name, LOSSES[name](net, scores, w))
    inputs = {node.name for node in net.graph() if node.op.name == "input"}
    return net, {name: array for name, array in DATA.items() if name in inputs}


def executor(net: gc.Net, **options: Any) -> gc.Executor:
    options = {"batch": ROWS, "optimizer": gc.SGD(lr=0.1), "backend": "numpy", **options}
    return gc.Executor(gc.compile(net, **options), seed=1)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", LOSSES)
def test_evaluate_does_not_depend_on_the_batch(name: str) -> None:
    net, feeds = net_of(name)
    whole = executor(net).forward(feeds)[name]
    for batch in (16, 7, 1):
        assert executor(net, batch=batch).evaluate(feeds) == {name: pytest.approx(whole)}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", LOSSES)
def test_steps_do_not_depend_on_shards(name: str) -> None:
    net, feeds = net_of(name)
    whole = executor(net)
    loss = whole.step(feeds)
    for shards in (2, 8):
        cut = executor(net, shards=shards)
        assert cut.step(feeds) == pytest.approx(loss)
        np.testing.assert_allclose(cut.parameters.flat(), whole.parameters.flat(), rtol=1e-9)


def test_a_weighted_mean_is_that_of_its_definition() -> None:
    net, feeds = net_of("all of them")
    ex = executor(net, batch=7)
    scores = feeds["x"] @ ex.parameters["f.weight"] + ex.parameters["f.bias"]
    y = feeds["y"]
    rows = np.log(np.exp(scores).sum(1)) - scores[np.arange(ROWS), y]
    counts = feeds["w"] * CLASS_WEIGHT[y] * (y != 2)
    assert ex.evaluate(feeds)["all of them"] == pytest.approx((counts * rows).sum() / counts.sum())


def test_losses_that_are_divided_by_different_weights_count_each_by_its_own() -> None:
    names = ("weights", "mean", "plain sum")
    net, feeds = net_of(*names)
    whole = executor(net).forward(feeds)
    for batch in (16, 7):
        found = executor(net, batch=batch).evaluate(feeds)
        assert found == {name: pytest.approx(whole[name]) for name in names}
    assert executor(net, shards=4).step(feeds) == pytest.approx(executor(net).step(feeds))


def test_one_loss_may_add_up_means_by_different_weights_in_shards() -> None:
    net, feeds = net_of("weights")
    other = LOSSES["cosine"](net, gc.affine(net["x"], CLASSES), net["w"])
    net.loss("both", other + 2 * gc.mse_loss(net["x"], 0 * net["x"]))
    feeds |= {"t": DATA["t"], "sign": DATA["sign"]}
    assert executor(net, shards=4).step(feeds) == pytest.approx(executor(net).step(feeds))


def test_scalar_outputs_are_added_up_where_they_are_sums() -> None:
    net, feeds = net_of("mean")
    net.output("hits", gc.sum(gc.cast(net["x"] > 0, "float64")))
    net.output("share", gc.mean(gc.cast(net["x"] > 0, "float64")))
    found = executor(net, batch=7).evaluate(feeds)
    assert found["hits"] == (feeds["x"] > 0).sum()
    assert found["share"] == pytest.approx((feeds["x"] > 0).mean())


def test_ranks_train_as_one() -> None:
    """Each is given its own rows only, but for what means are weighted by."""
    net, feeds = net_of("places")

    def train(ranks: Communicator | None) -> Array:
        size = 1 if ranks is None else ranks.size
        plan = gc.compile(
            net, batch=16, optimizer=gc.SGD(lr=0.1), backend="numpy", shards=4, ranks=size
        )
        ex = gc.Executor(plan, seed=1, communicator=ranks)
        gc.fit(ex, feeds, epochs=2, progress=False)
        return ex.parameters.flat()

    alone = train(None)
    for found in run_ranks(2, train):
        assert np.array_equal(found, alone)
    whole = executor(net, batch=16)
    gc.fit(whole, feeds, epochs=2, progress=False)
    np.testing.assert_allclose(alone, whole.parameters.flat(), rtol=1e-9)


def test_shards_refuse_weights_that_are_learned() -> None:
    net, _ = net_of("mean")
    w = net["w"] * net.parameter("scale", ())
    net.loss("learned", gc.mse_loss(net["x"], 0 * net["x"], weight=w))
    with pytest.raises(gc.GraphError, match="weighted by what is computed from 'scale'") as error:
        executor(net, shards=2)
    assert "without shards" in error.value.hint
    by_batches = [executor(net, batch=batch).evaluate(DATA_OF_MEAN) for batch in (40, 7)]
    assert by_batches[0] == pytest.approx(by_batches[1])


DATA_OF_MEAN = {name: DATA[name] for name in ("x", "t", "w")}
