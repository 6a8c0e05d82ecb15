"""Weights of rows and classes reach the loss."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.train.nets import BATCH, bits, classes, executor, table

X, Y = table(45)
W = np.random.default_rng(1).uniform(0.5, 2.0, 45).astype(np.float32)


def weighted() -> gc.Executor:
    return executor(classes(weighted=True))


def test_sample_and_class_weights_are_what_a_loop_feeds() -> None:
    a, b = weighted(), weighted()
    gc.fit(a, (X, Y), sample_weight=W, class_weight={0: 3.0, 2: 0.5}, epochs=2, shuffle=False)
    by_hand = W * np.array([3.0, 1.0, 0.5])[Y]
    for _ in range(2):
        for start in range(0, 45, BATCH):
            rows = slice(start, start + BATCH)
            b.step(x=X[rows], y=Y[rows], w=by_hand[rows])
    assert bits(a) == bits(b)


def test_weights_follow_their_rows_when_shuffled() -> None:
    a, b = weighted(), weighted()
    gc.fit(a, (X, Y), sample_weight=W, epochs=2)
    gc.fit(b, {"x": X, "y": Y, "w": W}, epochs=2)
    assert bits(a) == bits(b)
    gc.fit(a, (X, Y), class_weight={1: 2.0})
    gc.fit(b, (X, Y), sample_weight=np.where(Y == 1, 2.0, 1.0))
    assert bits(a) == bits(b)


def test_without_weights_all_are_one() -> None:
    a, b = weighted(), weighted()
    gc.fit(a, (X, Y), validation=(X, Y), epochs=2)
    gc.fit(b, (X, Y), sample_weight=np.ones(45), validation=(X, Y, np.ones(45)), epochs=2)
    assert bits(a) == bits(b)


def test_weights_of_positions_are_one_too() -> None:
    """For labels of several positions a row, also where the weighted loss is not trained."""
    for trained in (True, False):
        net = gc.Net("positions")
        x, y = net.input("x", (gc.N, 3, 4)), net.input("y", (gc.N, 4), dtype="int64")
        w = net.input("w", (gc.N, 4))
        scale = net.parameter("scale", (3, 1), init=0.5)
        loss = gc.softmax_loss(x * scale, y, weight=w)
        net.loss("loss", loss if trained else gc.sum(x * scale))
        random = np.random.default_rng(0)
        data = {"x": random.normal(size=(10, 3, 4)), "y": random.integers(0, 3, (10, 4))}
        a, b = executor(net), executor(net)
        gc.fit(a, data, epochs=2)
        gc.fit(b, {**data, "w": np.ones((10, 4))}, epochs=2)
        assert bits(a) == bits(b)


def test_a_weighted_mean_counts_by_the_weights_before_the_step() -> None:
    """The weights of classes are parameters here, which the steps train."""
    net = gc.Net("classes")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,), dtype="int64")
    weights = net.parameter("weights", (3,), init=1.0)
    net.loss("loss", gc.softmax_loss(x, y, class_weight=weights))
    a, b = (executor(net, optimizer=gc.SGD(lr=0.5)) for _ in range(2))
    data = np.random.default_rng(0).normal(size=(BATCH + 3, 3)), np.arange(BATCH + 3) % 3
    losses, counts = [], []
    for part in (slice(0, BATCH), slice(BATCH, None)):
        counts.append(b.parameters["weights"][data[1][part]].sum())
        losses.append(b.step(x=data[0][part], y=data[1][part]))
    history = gc.fit(a, data, shuffle=False)
    assert history.loss[0] == pytest.approx(np.average(losses, weights=counts), rel=1e-6)


def test_the_loss_is_the_weighted_mean_over_all_rows(tmp_path) -> None:
    """However the rows are cut into batches; a rate of 0 leaves the weights as they are."""
    uneven = np.where(np.arange(45) < 20, 1.0, 9.0)
    net = classes(dropout=False, weighted=True)
    ex = executor(net, optimizer=gc.SGD(lr=0.0))
    hidden = ex.predict(x=X).astype(np.float64)
    rows = np.log(np.exp(hidden).sum(axis=1)) - hidden[np.arange(45), Y]
    wanted = np.average(rows, weights=uneven)
    hits = np.mean(hidden.argmax(axis=1) == Y)
    found = ex.evaluate(X, Y, uneven)
    assert found == pytest.approx({"loss": wanted, "accuracy": hits}, rel=1e-5)
    history = gc.fit(ex, (X, Y, uneven), validation=(X, Y, uneven), batch=7)
    # Its batches of rows train batchnorm's running statistics, so that it is computed after.
    assert history.val_loss[0] == pytest.approx(ex.evaluate(X, Y, uneven)["loss"], rel=1e-6)
    plain = gc.Net("plain")
    x = plain.input("x", (gc.N, 4))
    y, w = plain.input("y", gc.N, dtype="int64"), plain.input("w", gc.N)
    scores = plain.output("scores", gc.affine(x, 3))
    plain.loss("loss", gc.softmax_loss(scores, y, weight=w))
    ex = executor(plain, optimizer=gc.SGD(lr=0.0))
    losses = [gc.fit(ex, (X, Y, uneven), batch=n).loss[0] for n in (1, 3, 8)]
    assert losses == pytest.approx([ex.evaluate(X, Y, uneven)["loss"]] * 3, rel=1e-5)
    np.savez(tmp_path / "all.npz", x=X, y=Y, w=uneven)
    assert gc.fit(ex, tmp_path).loss == pytest.approx(losses[:1], rel=1e-5)


def test_rows_of_weight_0_have_no_mean() -> None:
    ex = weighted()
    none = np.zeros(45)
    found = ex.evaluate(X, Y, none)
    assert np.isnan(found["loss"]) and 0 <= found["accuracy"] <= 1
    some = np.where(np.arange(45) < 8, 0.0, 1.0)  # the first batch has none, the others do
    rest = ex.evaluate(X[8:], Y[8:], some[8:])["loss"]
    assert ex.evaluate(X, Y, some)["loss"] == pytest.approx(rest, rel=1e-6)


def test_class_weights_with_batches_of_a_function_and_part_files(tmp_path) -> None:
    a, b, c = weighted(), weighted(), weighted()
    np.savez(tmp_path / "all.npz", x=X, y=Y)
    table = {0: 2.0}
    gc.fit(a, (X, Y), class_weight=table, shuffle=False)
    gc.fit(
        b,
        lambda epoch: ((X[i : i + 8], Y[i : i + 8]) for i in range(0, 45, 8)),
        class_weight=table,
    )
    gc.fit(c, tmp_path, class_weight=table, shuffle=False)
    assert bits(a) == bits(b) == bits(c)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample_weight": W[:5]}, "'x' has 45 rows, 'w' has 5"),
        ({"class_weight": {3: 1.0}}, "class_weight names the class 3, there are 0 to 2"),
        ({"class_weight": {0: -1.0}}, "the weight of class 0 is -1.0"),
        ({"class_weight": [1, 2, 3]}, "class_weight is list, not a mapping"),
    ],
)
def test_mistakes(options, words: str) -> None:
    ex = weighted()
    with pytest.raises(gc.GraphError, match=words):
        gc.fit(ex, (X, Y), **options)
    assert int(ex.state["updates"]) == 0


def test_a_net_that_takes_no_weights() -> None:
    for option in ("sample_weight", "class_weight"):
        with pytest.raises(gc.GraphError) as caught:
            gc.fit(executor(), (X, Y), **{option: {0: 1.0}})
        assert caught.value.sentence == (
            f"fit: {option} is given, but the net does not have exactly one input that is the "
            "weight of a loss"
        )


def test_classes_of_values_that_are_not_labels() -> None:
    for hot in (True, False):
        net = gc.Net("hot")
        x, w = net.input("x", (gc.N, 3)), net.input("w", (gc.N,))
        y = net.input("y", (gc.N, 3))
        scores = gc.affine(x, 3)
        if hot:
            net.loss("loss", gc.softmax_loss(scores, gc.argmax(y, 1), weight=w))
        else:
            net.loss("loss", gc.mse_loss(scores, y, weight=w))
        ex = executor(net)
        feeds = {"x": X[:, :3], "y": np.eye(3)[Y]}
        gc.fit(ex, feeds, sample_weight=W)
        with pytest.raises(gc.GraphError) as caught:
            gc.fit(ex, feeds, class_weight={0: 2.0})
        name = "argmax_1" if hot else "y"
        assert caught.value.sentence == (
            f"fit: class_weight is given, but {name!r} is not an input of class numbers"
        )


def test_weights_given_twice() -> None:
    with pytest.raises(gc.GraphError, match="sample_weight is given, and so is 'w'"):
        gc.fit(weighted(), (X, Y, W), sample_weight=W)
