"""One plan, every batch up to the planned one; and any number of rows in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc

Array = np.ndarray[Any, Any]
SGD = gc.SGD(lr=0.1, momentum=0.9)
CAPACITY = 128


def network(dtype: str = "float64") -> gc.Net:
    net = gc.Net("batches", dtype=dtype)
    x = net.input("x", (gc.N, 5))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.batchnorm(gc.affine(x, 7, name="first"), name="bn")
    h = gc.dropout(gc.relu(h), keep_prob=0.6, name="drop")
    scores = gc.affine(h, 3, name="second")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def batch(n: int, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng([n, seed])
    return {"x": rng.standard_normal((n, 5)), "y": rng.integers(0, 3, n)}


def assert_same(a: Any, b: Any) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("n", [1, 2, 97, 128])
def test_a_smaller_batch_is_what_its_own_plan_computes(n: int) -> None:
    large, exact = (
        gc.Executor(gc.compile(network(), batch=b, optimizer=SGD), seed=1) for b in (CAPACITY, n)
    )
    large.step(batch(CAPACITY))  # leaves rows behind in every buffer
    exact.state = large.state
    for seed in range(3):
        assert large.step(batch(n, seed)) == pytest.approx(exact.step(batch(n, seed)), abs=1e-12)
        assert_same(large.forward(batch(n, seed)), exact.forward(batch(n, seed)))
        outs = [e.forward(batch(n, seed), train=True) for e in (large, exact)]
        assert_same(*outs)
        assert_same(large.backward(), exact.backward())
    assert_same(large.state, exact.state)


@pytest.mark.parametrize("n", [0, CAPACITY + 1])
@pytest.mark.parametrize("call", ["forward", "train", "step"])
def test_too_many_and_no_rows_are_refused(n: int, call: str) -> None:
    ex = gc.Executor(gc.compile(network(), batch=CAPACITY, optimizer=SGD))
    before = {name: ex.state[name].tobytes() for name in ex.state}
    with pytest.raises(gc.FeedError, match="0 rows" if n == 0 else "129 rows, the plan takes up"):
        if call == "train":
            ex.forward(batch(n), train=True)
        else:
            getattr(ex, call)(batch(n))
    assert before == {name: ex.state[name].tobytes() for name in ex.state}


def test_acting_at_batch_one_sees_each_update_of_a_large_batch() -> None:
    net = network()
    learner = gc.Executor(gc.compile(net, batch=256, optimizer=SGD))
    actor = gc.Executor(gc.compile(net, batch=1, outputs="scores"), state=learner.state)
    alone = gc.compile(net, batch=1, outputs="scores")
    one, seen = batch(1)["x"], []
    for seed in range(5):
        learner.step(batch(256, seed))
        fresh = gc.Executor(alone)
        fresh.state = {name: learner.state[name] for name in fresh.state}
        seen.append(actor.forward(x=one)["scores"])
        assert np.array_equal(seen[-1], fresh.forward(x=one)["scores"])
    assert len({scores.tobytes() for scores in seen}) == 5


def test_predict_takes_any_number_of_rows() -> None:
    ex = gc.Executor(gc.compile(network(), batch=32))
    rows = batch(100)["x"]
    whole = gc.Executor(gc.compile(network(), batch=100)).forward(x=rows)["scores"]
    for predicted in (
        ex.predict(rows),
        ex.predict(x=rows),
        ex.predict({"x": rows}, y=batch(100)["y"]),
    ):
        np.testing.assert_allclose(predicted, whole, rtol=0, atol=1e-12)
    assert ex.predict(rows[:1]).shape == (1, 3)


def test_evaluate_is_the_mean_over_all_rows() -> None:
    ex = gc.Executor(gc.compile(network(), batch=32))
    data = batch(100)
    whole = gc.Executor(gc.compile(network(), batch=100)).forward(data)["loss"]
    for result in (ex.evaluate(data["x"], data["y"]), ex.evaluate(data), ex.evaluate(**data)):
        assert result == {"loss": pytest.approx(float(whole), abs=1e-12)}
    with pytest.raises(gc.FeedError, match="evaluate: what was fed determines no loss"):
        ex.evaluate(data["x"])
    with pytest.raises(gc.FeedError, match="evaluate: there are 0 rows"):
        ex.evaluate(data["x"][:0], data["y"][:0])


def test_predict_joins_along_the_batch_wherever_it_stands() -> None:
    net = gc.Net(dtype="float64")
    x = net.input("x", (2, 3 * gc.N))
    k = net.input("k", (2, 1))
    net.output("scaled", x * k)
    net.output("columns", gc.transpose(x, (1, 0)))
    net.output("total", gc.sum(x))
    ex = gc.Executor(gc.compile(net, batch=2))
    rows, scale = np.arange(30.0).reshape(2, 15), np.array([[2.0], [3.0]])
    got = ex.predict(rows, scale)
    assert got.keys() == {"scaled", "columns"}
    assert np.array_equal(got["scaled"], rows * scale)
    assert np.array_equal(got["columns"], rows.T)


def test_a_net_without_a_batch_runs_as_it_is() -> None:
    net = gc.Net(dtype="float64")
    x, rate = net.input("x", (2, 3)), net.input("rate", ())
    w = net.parameter("w", (3, 2))
    net.output("out", gc.matmul(x, w) * rate)
    net.loss("loss", gc.sum(net["mul_1"] * net["mul_1"]))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.01)))
    feed, start = np.arange(6.0).reshape(2, 3), ex.parameters["w"]
    want = feed @ start * 0.5
    assert np.allclose(ex.forward(x=feed, rate=0.5)["out"], want)
    assert np.allclose(ex.predict(feed, 0.5), want)
    assert ex.evaluate(feed, 0.5) == {"loss": pytest.approx((want**2).sum())}
    assert ex.step(x=feed, rate=0.5) == pytest.approx((want**2).sum())
    assert np.allclose(ex.parameters["w"], start - 0.01 * 0.5 * feed.T @ (2 * want))


def test_inputs_of_twice_the_batch() -> None:
    """Two rows a sample, say two views of it."""
    net = gc.Net(dtype="float64")
    x = net.input("x", (2 * gc.N, 4))
    w = net.input("weights", (gc.N,))
    h = gc.affine(x, 3, name="a")
    pairs = gc.reshape(h, (gc.N, 2, 3))
    net.output("difference", pairs[:, 0] - pairs[:, 1])
    net.loss("loss", gc.mean(gc.reshape(w, (gc.N, 1)) * net["sub_1"]))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1)))
    rows, weights = np.random.default_rng(0).standard_normal((6, 4)), np.array([1.0, 2.0, 3.0])
    weight = ex.parameters["a.weight"]
    out = ex.forward(x=rows, weights=weights)
    assert np.allclose(out["difference"], (rows[::2] - rows[1::2]) @ weight)
    assert ex.step(x=rows, weights=weights) == pytest.approx(float(out["loss"]))
    with pytest.raises(gc.FeedError, match="takes"):
        ex.forward(x=rows[:5], weights=weights)
    with pytest.raises(gc.FeedError, match="'x' has 3 rows, 'weights' has 2"):
        ex.forward(x=rows, weights=weights[:2])
