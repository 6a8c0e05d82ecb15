"""Losses of elements, and label smoothing: values and slopes are PyTorch's, on both backends."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError

BACKENDS = ("numpy", "native")
ERRORS = (-3.0, -0.5, 0.0, 0.2, 1.0, 4.0)
SCORES = (-30.0, -2.0, 0.0, 0.0, 1.5, 40.0)
SHARES = (0.0, 1.0, 0.0, 1.0, 0.3, 1.0)

SIDES = (1.0, -1.0, 1.0, -1.0, 1.0, -1.0)

# PyTorch 2.13, float64: huber_loss, l1_loss, binary_cross_entropy_with_logits, poisson_nll_loss,
# relu(1 - s*t) and its square, log(cosh(e)).
EXPECTED = {
    "huber 1": ((2.5, 0.125, 0.0, 0.02, 0.5, 3.5), (-1.0, -0.5, 0.0, 0.2, 1.0, 1.0)),
    "huber 0.3": ((0.855, 0.105, 0.0, 0.02, 0.255, 1.155), (-0.3, -0.3, 0.0, 0.2, 0.3, 0.3)),
    "mae": ((3.0, 0.5, 0.0, 0.2, 1.0, 4.0), (-1.0, -1.0, 0.0, 1.0, 1.0, 1.0)),
    "sigmoid": (
        (9.237e-14, 2.12692801104, 0.69314718056, 0.69314718056, 1.25141327798, 4.248e-18),
        (9.358e-14, -0.880797077978, 0.5, -0.5, 0.517574476194, 0.0),
    ),
    "sigmoid 2.5": (
        (9.237e-14, 5.31732002761, 0.69314718056, 1.7328679514, 1.34204925307, 1.062e-17),
        (9.358e-14, -2.20199269494, 0.5, -1.25, 0.435482990481, 0.0),
    ),
    "poisson": (
        (0.0497870683679, 1.10653065971, 1.0, 1.02140275816, 2.41828182846, 50.5981500331),
        (0.0497870683679, -0.393469340287, 1.0, 0.22140275816, 2.41828182846, 53.5981500331),
    ),
    "hinge": ((4.0, 0.5, 1.0, 1.2, 0.0, 5.0), (-1.0, 1.0, -1.0, 1.0, 0.0, 1.0)),
    "squared hinge": ((16.0, 0.25, 1.0, 1.44, 0.0, 25.0), (-8.0, 1.0, -2.0, 2.4, 0.0, 10.0)),
    "log_cosh": (
        (2.30932850458, 0.120114506958, 0.0, 0.01986807184, 0.433780830483, 3.30718822581),
        (-0.995054753687, -0.46211715726, 0.0, 0.197375320225, 0.761594155956, 0.999329299739),
    ),
}
TARGETS = {
    "sigmoid": (SCORES, SHARES),
    "sigmoid 2.5": (SCORES, SHARES),
    "poisson": (ERRORS, SHARES),
    "hinge": (ERRORS, SIDES),
    "squared hinge": (ERRORS, SIDES),
}
LOSSES: dict[str, Callable[[gc.Value, gc.Value], gc.Value]] = {
    "huber 1": lambda p, t: gc.huber_loss(p, t, reduction="none"),
    "huber 0.3": lambda p, t: gc.huber_loss(p, t, 0.3, reduction="none"),
    "mae": lambda p, t: gc.mae_loss(p, t, reduction="none"),
    "sigmoid": lambda p, t: gc.sigmoid_loss(p, t, reduction="none"),
    "sigmoid 2.5": lambda p, t: gc.sigmoid_loss(p, t, pos_weight=2.5, reduction="none"),
    "poisson": lambda p, t: gc.poisson_loss(p, t, reduction="none"),
    "hinge": lambda p, t: gc.hinge_loss(p, t, reduction="none"),
    "squared hinge": lambda p, t: gc.hinge_loss(p, t, squared=True, reduction="none"),
    "log_cosh": lambda p, t: gc.log_cosh_loss(p, t, reduction="none"),
}
CLOSE = {"float32": 3e-6, "float64": 1e-11}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EXPECTED)
def test_elements(name: str, dtype: str, backend: str) -> None:
    net = gc.Net("loss")
    p = net.input("p", (gc.N,), dtype=dtype)
    rows = LOSSES[name](p, net.input("t", (gc.N,), dtype=dtype))
    net.output("rows", rows)
    net.loss("total", gc.sum(rows))
    ex = gc.Executor(gc.compile(net, batch=6, backend=backend, wrt=["p"]))
    scores, targets = TARGETS.get(name, (ERRORS, (0.0,) * 6))
    feeds = {"p": np.array(scores, dtype), "t": np.array(targets, dtype)}
    values, slopes = EXPECTED[name]
    close = CLOSE[dtype]
    found = ex.forward(feeds, train=True)["rows"]
    np.testing.assert_allclose(found, values, rtol=close, atol=close)
    np.testing.assert_allclose(ex.backward()["p"], slopes, rtol=close, atol=close)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("share", "values", "slopes"),
    [
        (
            0.1,
            (1.07126356900895, 0.2992172370907624),
            (
                (0.5704155628152925, -0.00327444576375931, -0.5671411170515331),
                (0.013279289244640557, 0.002906218543172412, -0.016185507787812945),
            ),
        ),
        (
            0.5,
            (1.3379302356756166, 1.2325505704240958),
            (
                (0.4370822294819592, -0.13660777909709262, -0.3004744503848664),
                (-0.12005404408869277, 0.269572885209839, -0.14951884112114627),
            ),
        ),
    ],
)
def test_smoothed_labels(share: float, values: object, slopes: object, backend: str) -> None:
    """PyTorch 2.13: cross_entropy(..., label_smoothing=share)."""
    net = gc.Net("smooth")
    s, y = net.input("s", (gc.N, 3), dtype="float64"), net.input("y", (gc.N,), dtype="int64")
    rows = gc.softmax_loss(s, y, label_smoothing=share, reduction="none")
    net.output("rows", rows)
    net.loss("total", gc.sum(rows))
    ex = gc.Executor(gc.compile(net, batch=2, backend=backend, wrt=["s"]))
    feeds = {"s": np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]), "y": np.array([2, 1])}
    np.testing.assert_allclose(ex.forward(feeds, train=True)["rows"], values, rtol=1e-12)
    np.testing.assert_allclose(ex.backward()["s"], slopes, rtol=1e-11, atol=1e-14)


A = [[1.0, 2.0, 3.0], [0.5, -1.0, 0.0], [1.0, 1.0, 0.0]]
B = [[2.0, 0.0, 1.0], [1.0, -1.0, 2.0], [1.0, 0.9, 0.1]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_cosines(backend: str) -> None:
    """PyTorch 2.13: cosine_embedding_loss(..., margin=0.2)."""
    net = gc.Net("cosine", dtype="float64")
    a, b, t = net.input("a", (gc.N, 3)), net.input("b", (gc.N, 3)), net.input("t", (gc.N,))
    net.output("rows", gc.cosine_loss(a, b, t, margin=0.2, reduction="none"))
    net.output("cosine", gc.cosine_similarity(a, b))
    net.loss("total", gc.cosine_loss(a, b, t, margin=0.2, reduction="sum"))
    ex = gc.Executor(gc.compile(net, batch=4, backend=backend, wrt=["a"]))
    found = ex.forward(a=A, b=B, t=[1.0, -1.0, -1.0], train=True)
    rows = [0.402385695332884, 0.347722557504901, 0.79587059488530]
    np.testing.assert_allclose(found["rows"], rows, rtol=1e-9)
    np.testing.assert_allclose(found["cosine"], [1 - rows[0], rows[1] + 0.2, rows[2] + 0.2])
    slopes = [
        [-0.196358985819198, 0.085373472095296, 0.008537347209521],
        [0.146059348668149, 0.073029674333636, 0.730296743339868],
        [0.026207120918283, -0.026207120917785, 0.052414241836068],
    ]
    np.testing.assert_allclose(ex.backward()["a"], slopes, rtol=1e-7)
    zeros = ex.forward(a=np.zeros((1, 3)), b=[[1.0, 2.0, 3.0]], t=[1.0], train=True)
    assert zeros["cosine"][0] == 0
    assert np.isfinite(ex.backward()["a"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_divergences(backend: str) -> None:
    """PyTorch 2.13: kl_div, whose batchmean is the mean over rows; 0 * log 0 is 0."""
    net = gc.Net("kl", dtype="float64")
    s, t = net.input("s", (gc.N, 3)), net.input("t", (gc.N, 3))
    logs = gc.log_softmax(s, name="logs")
    net.output("rows", gc.kl_loss(logs, t, reduction="none"))
    net.loss("loss", gc.kl_loss(logs, t))
    ex = gc.Executor(gc.compile(net, batch=2, backend=backend, wrt=["s", "t"]))
    target = np.array([[0.2, 0.3, 0.5], [0.0, 0.4, 0.6]])
    found = ex.forward(s=A[:2], t=target, train=True)
    np.testing.assert_allclose(found["rows"], [0.0779529503798069, 0.831118938327472], rtol=1e-12)
    assert found["loss"] == pytest.approx(0.4545359443536394, rel=1e-12)
    softmax = np.exp(A[:2]) / np.exp(A[:2]).sum(axis=1, keepdims=True)
    slopes = ex.backward()
    np.testing.assert_allclose(slopes["s"], (softmax - target) / 2, rtol=1e-11, atol=1e-15)
    assert np.isfinite(slopes["t"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_are_means_over_features_weighted_and_reduced(backend: str) -> None:
    rng = np.random.default_rng(0)
    p, t = rng.standard_normal((2, 5, 3, 2)).astype(np.float32)
    w = rng.uniform(0.5, 2, 5).astype(np.float32)
    rows = np.abs(p - t).mean(axis=(1, 2))
    wanted = {"mean": (w * rows).sum() / w.sum(), "sum": (w * rows).sum(), "none": w * rows}
    for reduction, value in wanted.items():
        net = gc.Net("reduced")
        a, b = (net.input(name, (gc.N, 3, 2)) for name in "pt")
        weight = net.input("w", (gc.N,))
        net.output("loss", gc.mae_loss(a, b, weight=weight, reduction=reduction))
        ex = gc.Executor(gc.compile(net, batch=5, backend=backend))
        np.testing.assert_allclose(ex.forward(p=p, t=t, w=w)["loss"], value, rtol=1e-5)


def test_what_is_refused() -> None:
    net = gc.Net("wrong")
    p, t = net.input("p", (gc.N, 3)), net.input("t", (gc.N, 1))
    y = net.input("y", (gc.N,), dtype="int64")
    cases: dict[str, Callable[[], gc.Value]] = {
        "mae_loss: prediction is float32[N, 3], target is float32[N, 1]": lambda: gc.mae_loss(p, t),
        "sigmoid_loss: scores is float32[N, 3], target is float32[N, 1]": (
            lambda: gc.sigmoid_loss(p, t)
        ),
        "huber_loss: delta is 0, it must be above 0": lambda: gc.huber_loss(p, p, 0),
        "label_smoothing is 1.5, it must be from 0 to 1": (
            lambda: gc.softmax_loss(p, y, label_smoothing=1.5)
        ),
        "huber_loss: reduction 'avg' is not one of": lambda: gc.huber_loss(p, p, reduction="avg"),
    }
    for text, build in cases.items():
        with pytest.raises(GraphError, match=re.escape(text)):
            build()
