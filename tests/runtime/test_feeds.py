"""What may be fed: any layout, integers, lists; and what is converted on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc

Array = np.ndarray[Any, Any]


def network(labels: str = "int64", dtype: str = "float32") -> gc.Executor:
    net = gc.Net("feeds", dtype=dtype)
    x = net.input("x", (gc.N, 2, 3))
    y = net.input("y", (gc.N,), dtype=labels)
    scores = gc.affine(x, 4, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return gc.Executor(gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.1)))


X = np.arange(48.0, dtype=np.float32).reshape(8, 2, 3) / 10
Y = np.array([0, 1, 2, 3, 0, 1, 2, 3])

LAYOUTS = {
    "fortran": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=2)[:, :, ::2],
    "reversed": np.ascontiguousarray(X[::-1])[::-1],
    "transposed": np.ascontiguousarray(X.transpose(2, 0, 1)).transpose(1, 2, 0),
    "float64": X.astype(np.float64),
    "big endian": X.astype(">f4"),
    "list": X.tolist(),
    "read-only": np.frombuffer(X.tobytes(), np.float32).reshape(X.shape),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_a_feed_does_not_matter(layout: str) -> None:
    plain, other = network(), network()
    feed: Any = LAYOUTS[layout]
    assert np.array_equal(plain.forward(x=X)["scores"], other.forward(x=feed)["scores"])
    assert plain.step(x=X, y=Y) == other.step(x=feed, y=Y)
    assert np.array_equal(plain.parameters.flat(), other.parameters.flat())


@pytest.mark.one_in(3)
@pytest.mark.parametrize("declared", ["int64", "int32"])
@pytest.mark.parametrize("fed", ["int64", "int32", "uint8", "strided", "list"])
def test_labels_of_every_integer_type(declared: str, fed: str) -> None:
    labels: Any = {"strided": np.repeat(Y, 3)[::3], "list": Y.tolist()}.get(fed)
    labels = Y.astype(fed) if labels is None else labels
    assert network(declared).step(x=X, y=labels) == network().step(x=X, y=Y)


def test_integers_feed_floats() -> None:
    ex = network()
    images = np.arange(48, dtype=np.uint8).reshape(8, 2, 3)
    want = ex.forward(x=images.astype(np.float32))["scores"]
    assert np.array_equal(ex.forward(x=images)["scores"], want)
    assert np.array_equal(ex.forward(x=images > 100)["scores"], ex.forward(x=X * 0)["scores"])


def test_feeds_are_copied() -> None:
    ex = network()
    feed = X.copy()
    ex.forward(x=feed, y=Y, train=True)
    want = ex.backward()
    ex.forward(x=feed, y=Y, train=True)
    feed[...] = np.nan
    assert all(np.array_equal(ex.backward()[name], want[name]) for name in want)


def test_feeds_by_mapping_and_by_name() -> None:
    ex = network()
    want = ex.forward(x=X, y=Y)
    for got in (ex.forward({"x": X, "y": Y}), ex.forward({"x": X}, y=Y)):
        assert all(np.array_equal(got[name], want[name]) for name in want)


def test_integer_inputs_and_scalars_in_a_net() -> None:
    net = gc.Net(dtype="float64")
    index = net.input("index", (gc.N,), dtype="int32")
    scale = net.input("scale", ())
    net.output("rows", gc.cast(gc.one_hot(index, 4), "float64") * scale)
    ex = gc.Executor(gc.compile(net, batch=4))
    got = ex.forward(index=np.array([3, 0]), scale=2)["rows"]
    assert np.array_equal(got, 2 * np.eye(4)[[3, 0]])
    for scalar in (2.0, np.float32(2), np.array(2)):
        assert np.array_equal(ex.forward(index=[3, 0], scale=scalar)["rows"], got)


def test_float64_nets_keep_float64() -> None:
    ex = network(dtype="float64")
    out = ex.forward(x=X.astype(np.float64) + 1e-12)["scores"]
    assert out.dtype == np.float64
    assert not np.array_equal(out, ex.forward(x=X)["scores"])
    assert ex.parameters["scores.weight"].dtype == ex.state["hyper.lr"].dtype == np.float64


@pytest.mark.parametrize("bad", [-1, 4, 10**12, -(10**12)])
@pytest.mark.parametrize("layout", ["plain", "strided"])
def test_a_label_out_of_range_is_named_with_its_row(bad: int, layout: str) -> None:
    labels = Y.copy()
    labels[5] = bad
    if layout == "strided":
        labels = np.repeat(labels, 2)[::2]
    with pytest.raises(gc.FeedError, match=rf"label {bad} at row 5, there are 4 classes"):
        network().step(x=X, y=labels)


def test_an_input_that_is_not_read_tells_the_rows() -> None:
    """The derivative of what depends on no row is zeros, as many as there are rows."""
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    slope = gc.grad(gc.sum(net.parameter("p", (3,))) + gc.sum(gc.stop_gradient(x)), x)
    net.output("slope", slope)
    ex = gc.Executor(gc.compile(net, batch=4, backend="numpy"))
    for n in (4, 1, 3):
        assert ex.forward(x=np.ones((n, 2)))["slope"].shape == (n, 2)
    with pytest.raises(gc.FeedError, match="5 rows"):
        ex.forward(x=np.ones((5, 2)))
