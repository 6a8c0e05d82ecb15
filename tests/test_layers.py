"""The course's functions: known answers, and what they leave alone."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
import tests.student_layers as student
from graphc import layers
from graphc.base.errors import GraphError
from graphc.declare.net import Net
from graphc.ir.tensor_type import N
from graphc.ops.linalg import affine
from graphc.ops.losses.classes import softmax_loss
from graphc.ops.select import relu
from graphc.ops.sums import sum_
from graphc.runtime.reference import evaluate
from tests.together import together

# Known answers of the assignments (CS231n, inputs by linspace).


def test_the_affine_table() -> None:
    x = np.linspace(-0.1, 0.5, 240).reshape(2, 4, 5, 6)
    w = np.linspace(-0.2, 0.3, 360).reshape(120, 3)
    out, cache = layers.affine_forward(x, w, np.linspace(-0.3, 0.1, 3))
    expected = [[1.49834967, 1.70660132, 1.91485297], [3.25553199, 3.5141327, 3.77273342]]
    np.testing.assert_allclose(out, expected, rtol=1e-8)
    dx, dw, db = layers.affine_backward(out, cache)
    assert (dx.shape, dw.shape, db.shape) == ((2, 4, 5, 6), (120, 3), (3,))


def test_relu_by_hand() -> None:
    out, cache = layers.relu_forward(np.linspace(-0.5, 0.5, 12).reshape(3, 4))
    expected = np.array([[0, 0, 0, 0], [0, 0, 1 / 22, 3 / 22], [5 / 22, 7 / 22, 9 / 22, 0.5]])
    np.testing.assert_allclose(out, expected, rtol=1e-12)
    np.testing.assert_array_equal(layers.relu_backward(np.ones((3, 4)), cache), expected > 0)


@pytest.mark.parametrize(("reg", "expected"), [(0.0, 3.4702243556), (1.0, 26.5948426952)])
def test_the_two_layer_losses(reg: float, expected: float) -> None:
    net = Net("two layers", dtype="float64")
    x, y = net.input("x", (N, 5)), net.input("y", (N,), dtype="int64")
    hidden = relu(affine(x, 50, name="first"))
    scores = net.output("scores", affine(hidden, 7, name="second"))
    net.loss("data", softmax_loss(scores, y))
    for name in ("first.weight", "second.weight") if reg else ():
        net.loss(f"reg {name}", 0.5 * reg * sum_(net[name] * net[name]))
    state = {
        "first.weight": np.linspace(-0.7, 0.3, 250).reshape(5, 50),
        "first.bias": np.linspace(-0.1, 0.9, 50),
        "second.weight": np.linspace(-0.3, 0.4, 350).reshape(50, 7),
        "second.bias": np.linspace(-0.9, 0.1, 7),
    }
    feeds = {"x": np.linspace(-5.5, 4.5, 15).reshape(5, 3).T, "y": np.array([0, 5, 1])}
    graph = net.graph()
    values = evaluate(graph, feeds, state, 3)
    loss = sum(float(values[graph.outputs[name]]) for name in graph.losses)
    assert abs(loss - expected) < 1e-10
    row = [11.53165108, 12.2917344, 13.05181771, 13.81190102, 14.57198434, 15.33206765, 16.09215096]
    np.testing.assert_allclose(
        values["second"][0],
        row,
        atol=1e-8,
    )


def test_the_convolution_of_the_assignment() -> None:
    x = np.linspace(-0.1, 0.5, 96).reshape(2, 3, 4, 4)
    w = np.linspace(-0.2, 0.3, 144).reshape(3, 3, 4, 4)
    param = {"stride": 2, "pad": 1}
    out, _ = layers.conv_forward_naive(x, w, np.linspace(-0.1, 0.2, 3), param)
    expected = [
        [-0.08759809, -0.10987781, -0.18387192, -0.2109216],
        [0.21027089, 0.21661097, 0.22847626, 0.23004637],
        [0.50813986, 0.54309974, 0.64082444, 0.67101435],
        [-0.98053589, -1.03143541, -1.19128892, -1.24695841],
        [0.69108355, 0.66880383, 0.59480972, 0.56776003],
        [2.36270298, 2.36904306, 2.38090835, 2.38247847],
    ]
    np.testing.assert_allclose(out.reshape(6, 4), expected, rtol=1e-6)


def test_the_pool_of_the_assignment() -> None:
    x = np.linspace(-0.3, 0.4, 96).reshape(2, 3, 4, 4)
    pool = {"pool_height": 2, "pool_width": 2, "stride": 2}
    out, _ = layers.max_pool_forward_naive(x, pool)
    first = [[-0.26315789, -0.24842105], [-0.20421053, -0.18947368]]
    np.testing.assert_allclose(out[0, 0], first, rtol=1e-7)
    np.testing.assert_allclose(out[1, 2], [[0.32631579, 0.34105263], [0.38526316, 0.4]], rtol=1e-7)


def test_the_recurrent_steps_of_the_assignment() -> None:
    x, h = np.linspace(-0.4, 0.7, 30).reshape(3, 10), np.linspace(-0.2, 0.5, 12).reshape(3, 4)
    Wx, Wh = np.linspace(-0.1, 0.9, 40).reshape(10, 4), np.linspace(-0.3, 0.7, 16).reshape(4, 4)
    out, _ = layers.rnn_step_forward(x, h, Wx, Wh, np.linspace(-0.2, 0.4, 4))
    expected = [
        [-0.58172089, -0.50182032, -0.41232771, -0.31410098],
        [0.66854692, 0.79562378, 0.87755553, 0.92795967],
        [0.97934501, 0.99144213, 0.99646691, 0.99854353],
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-7)
    x, h = np.linspace(-0.4, 1.2, 12).reshape(3, 4), np.linspace(-0.3, 0.7, 15).reshape(3, 5)
    c, b = np.linspace(-0.4, 0.9, 15).reshape(3, 5), np.linspace(0.3, 0.7, 20)
    Wx, Wh = np.linspace(-2.1, 1.3, 80).reshape(4, 20), np.linspace(-0.7, 2.2, 100).reshape(5, 20)
    out, _, _ = layers.lstm_step_forward(x, h, c, Wx, Wh, b)
    expected = [
        [0.24635157, 0.28610883, 0.32240467, 0.35525807, 0.38474904],
        [0.49223563, 0.55611431, 0.61507696, 0.66844003, 0.7159181],
        [0.56735664, 0.66310127, 0.74419266, 0.80889665, 0.858299],
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_a_sequence_is_its_steps() -> None:
    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5))
    weights = [rng.standard_normal(shape) for shape in ((4, 20), (5, 20), (20,))]
    states, cache = layers.lstm_forward(x, h0, *weights)
    h, c = h0, np.zeros((2, 5))
    for t in range(3):
        h, c, _ = layers.lstm_step_forward(x[:, t], h, c, *weights)
        np.testing.assert_allclose(states[:, t], h, rtol=1e-12)
    shapes = [gradient.shape for gradient in layers.lstm_backward(states, cache)]
    assert shapes == [(2, 3, 4), (2, 5), (4, 20), (5, 20), (20,)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_of_a_recurrent_layer(dtype: str) -> None:
    shapes = (2, 3, 4), (2, 5), (4, 5), (5, 5), (5,)
    h, cache = layers.rnn_forward(*(np.ones(shape, dtype) for shape in shapes))
    assert {array.dtype.name for array in (h, *layers.rnn_backward(h, cache))} == {dtype}


def test_losses_at_the_start() -> None:
    rng = np.random.default_rng(231)
    x, y = 0.001 * rng.standard_normal((50, 10)), rng.integers(0, 10, 50)
    assert layers.svm_loss(x, y)[0] == pytest.approx(9, abs=0.01)
    assert layers.softmax_loss(x, y)[0] == pytest.approx(np.log(10), abs=0.01)
    assert isinstance(layers.softmax_loss(x, y)[0], float)


def test_batchnorm_running_statistics() -> None:
    rng = np.random.default_rng(0)
    param: dict[str, Any] = {"mode": "train"}
    same: dict[str, Any] = {"mode": "train", "running_mean": 0.0, "running_var": 0.0}
    gamma, beta = np.array([1.0, 2.0, 3.0]), np.array([11.0, 12.0, 13.0])
    for _ in range(50):
        x = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 3))
        out, _ = layers.batchnorm_forward(x, gamma, beta, param)
        student.batchnorm_forward(x, gamma, beta, same)
    np.testing.assert_allclose(out.mean(axis=0), beta)
    np.testing.assert_allclose(out.std(axis=0), gamma, rtol=1e-4)
    np.testing.assert_allclose(param["running_mean"], same["running_mean"])
    np.testing.assert_allclose(param["running_var"], same["running_var"])
    param["mode"], before = "test", {k: np.copy(v) for k, v in param.items()}
    layers.batchnorm_forward(x, gamma, beta, param)
    np.testing.assert_array_equal(param["running_mean"], before["running_mean"])


# Dropout.


def test_dropout_masks() -> None:
    x = np.ones((500, 500)) * 10
    for p in (0.25, 0.4, 0.7):
        out, _ = layers.dropout_forward(x, {"mode": "train", "p": p})
        assert set(np.unique(out)) == {0, 10 / p}
        assert (out == 0).mean() == pytest.approx(1 - p, abs=0.005)
        np.testing.assert_array_equal(layers.dropout_forward(x, {"mode": "test", "p": p})[0], x)


def test_a_seeded_mask_repeats_and_an_unseeded_one_does_not() -> None:
    x = np.ones((8, 8))
    seeded: dict[str, Any] = {"mode": "train", "p": 0.5, "seed": 123}
    first, again = (layers.dropout_forward(x, seeded)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != layers.dropout_forward(x, {**seeded, "draws": 1})[0]).any()
    assert (first != layers.dropout_forward(x, {**seeded, "seed": 124})[0]).any()
    free: dict[str, Any] = {"mode": "train", "p": 0.5}
    first, again = (layers.dropout_forward(x, free)[0] for _ in range(2))
    assert (first != again).any() and free["draws"] == 2


# What they leave alone, and dtypes.


@settings(max_examples=12, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    units=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_any_rank_against_the_students(shape: list[int], units: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = int(np.prod(shape[1:]))
    x, w, b = (rng.standard_normal(s) for s in (shape, (width, units), (units,)))
    dout = rng.standard_normal((shape[0], units))
    kept = [a.copy() for a in (x, w, b, dout)]
    out, cache = layers.affine_relu_forward(x, w, b)
    expected, same = student.affine_relu_forward(x, w, b)
    np.testing.assert_allclose(out, expected, rtol=1e-12)
    theirs = student.affine_relu_backward(dout, same)
    for _ in range(2):
        for a, e in zip(layers.affine_relu_backward(dout, cache), theirs, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-13)
    for a, e in zip((x, w, b, dout), kept, strict=True):
        np.testing.assert_array_equal(a, e)


def test_float32_stays_float32() -> None:
    x, w, b = (np.ones(s, "float32") for s in ((2, 3), (3, 4), (4,)))
    out, cache = layers.affine_forward(x, w, b)
    assert {a.dtype.name for a in (out, *layers.affine_backward(out, cache))} == {"float32"}
    out, cache = layers.batchnorm_forward(
        x, np.ones(3, "float32"), np.zeros(3, "float32"), {"mode": "train"}
    )
    assert out.dtype == "float32"


@together("name", layers.__all__)
def test_an_example_prints_what_it_says(name: str) -> None:
    names, text = {"gc": graphc, "np": np}, getattr(layers, name).__doc__
    example = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    texts: list[str] = []
    doctest.DocTestRunner().run(example, out=texts.append)
    assert not texts


def test_no_rows() -> None:
    param = {"stride": 1, "pad": 1}
    images, gamma = np.ones((0, 4, 3, 3)), np.ones((1, 4, 1, 1))
    out, cache = layers.affine_forward(images, np.ones((36, 2)), np.ones(2))
    assert out.shape == (0, 2) and layers.affine_backward(out, cache)[0].shape == images.shape
    out, kept = layers.conv_forward_naive(images, np.ones((2, 4, 3, 3)), np.ones(2), param)
    dx, dw, _ = layers.conv_backward_naive(out, kept)
    assert out.shape == (0, 2, 3, 3) and dx.shape == images.shape and not dw.any()
    out, kept = layers.spatial_groupnorm_forward(images, gamma, gamma, 2, {})
    assert out.shape == layers.spatial_groupnorm_backward(out, kept)[0].shape == images.shape


# Mistakes.

X = np.zeros((5, 3))
LSTM = np.zeros((3, 12)), np.zeros(12)


@together(
    "call, sentence",
    [
        (
            lambda: layers.affine_forward(X, np.zeros((4, 2)), np.zeros(2)),
            "affine_forward: x has 3 features, weight takes 4",
        ),
        (
            lambda: layers.affine_forward(X, np.zeros((3, 2)), np.zeros(3)),
            "affine_forward: bias has shape (3,), weight gives 2 units",
        ),
        (
            lambda: layers.affine_backward(X, layers.affine_forward(X, X.T, np.zeros(5))[1]),
            "affine_backward: dout has shape (5, 3), the output has (5, 5)",
        ),
        (
            lambda: layers.affine_backward(X, (X, X)),
            "affine_backward: the cache is not one that the forward function returned",
        ),
        (
            lambda: layers.affine_forward(X + 1j, np.zeros((3, 2)), np.zeros(2)),
            "affine_forward: x is an array of complex128, not of real numbers",
        ),
        (
            lambda: layers.relu_forward([[1.0], [2.0, 3.0]]),  # type: ignore[arg-type]
            "relu_forward: x is a list, not an array of real numbers",
        ),
        (
            lambda: layers.conv_backward_naive(X, layers.layernorm_forward(X, X[0], X[0], {})[1]),
            "conv_backward_naive: the cache is not one that the forward function returned",
        ),
        (
            lambda: layers.affine_backward(X, (X, X, X[0])),
            "affine_backward: x has 3 features, weight takes 5",
        ),
        (
            lambda: layers.lstm_step_backward(
                X, X[:1], layers.lstm_step_forward(X, X, X, np.zeros((3, 12)), *LSTM)[2]
            ),
            "lstm_step_backward: dnext_c has shape (1, 3), the output has (5, 3)",
        ),
        (
            lambda: layers.batchnorm_forward(X, np.ones(3), np.ones(3), None),  # type: ignore[arg-type]
            "batchnorm_forward: the settings are None, they must be a dictionary",
        ),
        (
            lambda: layers.layernorm_forward(X, X[0], X[0], {"eps": "small"}),
            "layernorm_forward: eps is 'small', it must be 0 or more",
        ),
        (
            lambda: layers.dropout_forward(X, {"mode": "train", "p": 0.5, "seed": "a"}),
            "dropout_forward: seed is 'a', it must be a whole number",
        ),
        (
            lambda: layers.batchnorm_forward(X, np.ones(3), np.ones(3), {}),
            "batchnorm_forward: mode is None, it must be 'train' or 'test'",
        ),
        (
            lambda: layers.batchnorm_forward(X, np.ones(4), np.ones(3), {"mode": "train"}),
            "batchnorm_forward: x has 3 features of float64, a parameter is float64[4]",
        ),
        (
            lambda: layers.batchnorm_forward(X[:0], X[0], X[0], {"mode": "train"}),
            "batchnorm_forward: there are no rows to take the statistics of",
        ),
        (
            lambda: layers.dropout_forward(X, {"mode": "train", "p": 0}),
            "dropout_forward: p is 0, the probability to keep must be 0 < p <= 1",
        ),
        (
            lambda: layers.softmax_loss(X, np.zeros(5)),
            "softmax_loss: labels are float64, softmax_loss takes class numbers",
        ),
        (
            lambda: layers.softmax_loss(X, [0, [1, 2]]),  # type: ignore[arg-type]
            "softmax_loss: y is a list, not an array of real numbers",
        ),
        (
            lambda: layers.svm_loss(X, np.full(5, 2**64 - 1, np.uint64)),
            "svm_loss: label 18446744073709551615 is not one of the 3 classes, 0 to 2",
        ),
        (
            lambda: layers.temporal_softmax_loss(np.ones((1, 1, 3)), [[0]], [["yes"]]),  # type: ignore[arg-type]
            "temporal_softmax_loss: mask is a list, not an array of real numbers",
        ),
        (
            lambda: layers.word_embedding_forward([[0], [1, 2]], X),  # type: ignore[arg-type]
            "word_embedding_forward: x is a list, not an array of real numbers",
        ),
        (
            lambda: layers.svm_loss(X, np.array([0, 1, 2, 3, 0])),
            "svm_loss: label 3 is not one of the 3 classes, 0 to 2",
        ),
        (
            lambda: layers.svm_loss(X[:0], np.zeros(0, int)),
            "svm_loss: there are no scores to take the mean of",
        ),
        (
            lambda: layers.rnn_step_forward(X, X, np.zeros((3, 3)), np.zeros((2, 3)), np.zeros(3)),
            "rnn_step_forward: Wh has shape (2, 3), it should have (H, H) = (3, 3)",
        ),
        (
            lambda: layers.lstm_forward(X, X, X, X, X),
            "lstm_forward: x has shape (5, 3), it should have (N, T, D)",
        ),
        (
            lambda: layers.rnn_forward(np.zeros((5, 0, 3)), X, X[:3], X[:3], np.zeros(3)),
            "rnn_forward: x has no steps",
        ),
        (
            lambda: layers.word_embedding_forward(np.array([[0, 5]]), X),
            "word_embedding_forward: word 5 is not one of the 5 words, 0 to 4",
        ),
        (
            lambda: layers.conv_forward_naive(X, X, X, {"pad": 1}),
            "conv_forward_naive: stride is None, it must be a whole number from 1 up",
        ),
        (
            lambda: layers.spatial_groupnorm_forward(np.ones((2, 3, 4, 4)), X[0], X[0], 2, {}),
            "spatial_groupnorm_forward: groups is 2, it must divide the 3 channels",
        ),
        (
            lambda: layers.temporal_softmax_loss(np.ones((1, 2, 3)), X, X),
            "temporal_softmax_loss: y has shape (5, 3), it should have (N, T) = (1, 2)",
        ),
    ],
)
def test_mistakes_are_reported(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(GraphError) as caught:
        call()
    assert caught.value.sentence == sentence
    assert "test_layers.py" in str(caught.value)
