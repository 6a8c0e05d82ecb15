"""Losses by labels: weights of classes, ignored labels, soft targets, places beside the rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs

BACKENDS = ("numpy", "native")
CLASSES, IGNORED = 4, -100
WEIGHTS = (0.5, 2.0, 1.0, 0.25)
Array = np.ndarray[Any, Any]


def log_probs(scores: Array) -> Array:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def by_hand(
    logs: Array, labels: Array, weight: Array, smoothing: float, by_class: bool, reduction: str
) -> Array:
    """Label by label, as PyTorch documents it."""
    of_class = WEIGHTS if by_class else (1.0,) * CLASSES
    losses, total = np.zeros(labels.shape), 0.0
    for place, label in np.ndenumerate(labels):
        if label != IGNORED:
            row = logs[place[0], :, *place[1:]]
            own = -row[label] * of_class[label]
            even = -np.mean(row * of_class)
            losses[place] = weight[place] * ((1 - smoothing) * own + smoothing * even)
            total += weight[place] * of_class[label]
    if reduction == "none":
        return losses
    return np.asarray(losses.sum() / total if reduction == "mean" else losses.sum())


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("places", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize(
    ("reduction", "by_class", "ignore", "smoothing"),
    [
        ("mean", False, None, 0.0),
        ("mean", True, IGNORED, 0.0),
        ("mean", True, IGNORED, 0.3),
        ("sum", False, IGNORED, 0.3),
        ("none", True, None, 0.0),
    ],
)
def test_by_the_formula(
    reduction: str,
    by_class: bool,
    ignore: int | None,
    smoothing: float,
    places: tuple[int, ...],
    backend: str,
) -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((5, CLASSES, *places))
    labels = rng.integers(0, CLASSES, (5, *places))
    labels[1::2] = labels[1::2] if ignore is None else ignore
    weight = rng.uniform(0.5, 2.0, labels.shape)
    net = gc.Net("labels", dtype="float64")
    s, w = net.input("s", (gc.N, CLASSES, *places)), net.input("w", (gc.N, *places))
    y = net.input("y", (gc.N, *places), dtype="int64")
    options: dict[str, Any] = {
        "weight": w,
        "reduction": reduction,
        "class_weight": WEIGHTS if by_class else None,
        "ignore": ignore,
    }
    net.output("softmax", gc.softmax_loss(s, y, label_smoothing=smoothing, **options))
    net.output("nll", gc.nll_loss(s, y, **options))
    ex = gc.Executor(gc.compile(net, batch=7, backend=backend))
    found = ex.forward(s=scores, y=labels, w=weight)
    for name, logs, share in (("softmax", log_probs(scores), smoothing), ("nll", scores, 0.0)):
        wanted = by_hand(logs, labels, weight, share, by_class, reduction)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("places", [(), (3,)], ids=str)
def test_slopes_are_those_of_torch(places: tuple[int, ...], backend: str) -> None:
    torch = needs("torch")
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((6, CLASSES, *places))
    labels = rng.integers(0, CLASSES, (6, *places))
    labels[2] = IGNORED
    beliefs = rng.dirichlet(np.ones(CLASSES), size=(6, *places))
    beliefs = np.moveaxis(beliefs, -1, 1)
    for ignore, target in ((IGNORED, labels), (None, beliefs)):
        for smoothing in (0.0, 0.2):
            net = gc.Net("labels", dtype="float64")
            s = net.input("s", scores.shape)
            y = net.input("y", target.shape, dtype=target.dtype.name)
            options: dict[str, Any] = {"class_weight": WEIGHTS, "ignore": ignore}
            net.loss("loss", gc.softmax_loss(s, y, label_smoothing=smoothing, **options))
            ex = gc.Executor(gc.compile(net, batch=1, backend=backend, wrt=["s"]))
            loss = ex.forward(s=scores, y=target, train=True)["loss"]
            theirs = torch.tensor(scores, requires_grad=True)
            wanted = torch.nn.functional.cross_entropy(
                theirs, torch.tensor(target), torch.tensor(WEIGHTS).double(),
                label_smoothing=smoothing,
            )  # fmt: skip
            wanted.backward()
            np.testing.assert_allclose(loss, wanted.item(), rtol=1e-12)
            np.testing.assert_allclose(ex.backward()["s"], theirs.grad, rtol=1e-9, atol=1e-15)


def test_soft_targets_of_one_class_are_labels() -> None:
    rng = np.random.default_rng(2)
    scores, labels = rng.standard_normal((5, CLASSES, 2)), rng.integers(0, CLASSES, (5, 2))
    net = gc.Net("soft", dtype="float64")
    s, y = net.input("s", (gc.N, CLASSES, 2)), net.input("y", (gc.N, 2), dtype="int64")
    t = net.input("t", (gc.N, CLASSES, 2))
    for name, target in (("hard", y), ("soft", t)):
        loss = gc.softmax_loss(s, target, label_smoothing=0.1, reduction="none", name=name)
        net.output(name, loss)
    ex = gc.Executor(gc.compile(net, batch=5))
    found = ex.forward(s=scores, y=labels, t=np.moveaxis(np.eye(CLASSES)[labels], -1, 1))
    assert found["hard"].shape == (5, 2)
    np.testing.assert_allclose(found["soft"], found["hard"], rtol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_class_that_cannot_be_does_no_harm(backend: str) -> None:
    net = gc.Net("masked")
    s, y = net.input("s", (gc.N, 3)), net.input("y", (gc.N,), dtype="int32")
    net.loss("loss", gc.softmax_loss(s, y, class_weight=[1.0, 2.0, 3.0]))
    ex = gc.Executor(gc.compile(net, batch=2, backend=backend, wrt=["s"]))
    scores = np.array([[1.0, -np.inf, 2.0], [0.0, 1.0, -np.inf]], np.float32)
    loss = ex.forward(s=scores, y=np.array([0, 1]), train=True)["loss"]
    wanted = (np.log1p(np.e) + 2 * np.log1p(np.exp(-1.0))) / 3
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    assert np.isfinite(ex.backward()["s"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ignore", [-1, 9])
def test_only_the_ignored_label_need_be_no_class(ignore: int, backend: str) -> None:
    net = gc.Net("ignored")
    x, y = net.input("x", (gc.N, 2)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(x, 3), y, ignore=ignore))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend=backend)
    ex = gc.Executor(plan)
    rows = np.ones((4, 2), np.float32)
    for labels in ([0, 1, 2, 0], [0, ignore, 2, ignore]):  # once where they lie, once copied
        before = ex.snapshot()
        assert np.isfinite(ex.step(x=rows, y=np.array(labels)))
        kept = np.array(labels) != ignore
        other = gc.Executor(plan)
        other.state = before
        other.step(x=rows[kept], y=np.array(labels)[kept])
        for name in ex.parameters:
            np.testing.assert_allclose(ex.parameters[name], other.parameters[name], rtol=1e-5)
    before = ex.snapshot()
    with pytest.raises(gc.FeedError, match=r"holds the label 3 at row 2") as caught:
        ex.step(x=rows, y=np.array([0, ignore, 3, 1]))
    assert caught.value.hint == f"labels go from 0 to 2, and {ignore} is ignored"
    for name, array in ex.snapshot().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_label_that_another_loss_reads_is_not_ignored() -> None:
    net = gc.Net("both")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,), dtype="int64")
    net.output("first", gc.softmax_loss(x, y, ignore=-1))
    net.output("second", gc.svm_loss(x, y))
    ex = gc.Executor(gc.compile(net, batch=2))
    with pytest.raises(gc.FeedError, match="holds the label -1"):
        ex.forward(x=np.ones((2, 3)), y=np.array([0, -1]))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_does_not_depend_on_batches(weighted: bool) -> None:
    rng = np.random.default_rng(3)
    net = gc.Net("means", dtype="float64")
    s, y = net.input("s", (gc.N, CLASSES, 2)), net.input("y", (gc.N, 2), dtype="int64")
    w = net.input("w", (gc.N, 2)) if weighted else None
    loss = gc.softmax_loss(s, y, weight=w, class_weight=WEIGHTS, ignore=IGNORED)
    net.loss("loss", loss)
    data = {"s": rng.standard_normal((11, CLASSES, 2)), "y": rng.integers(0, CLASSES, (11, 2))}
    data["y"][3:6] = IGNORED
    if weighted:
        data["w"] = rng.uniform(0.1, 3.0, (11, 2))
    whole = gc.Executor(gc.compile(net, batch=11)).evaluate(data)
    parts = gc.Executor(gc.compile(net, batch=3)).evaluate(data)
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-12)
    logs = log_probs(data["s"])
    weight = data.get("w", np.ones((11, 2)))
    assert whole["loss"] == pytest.approx(by_hand(logs, data["y"], weight, 0.0, True, "mean"))


def test_what_is_refused() -> None:
    net = gc.Net("wrong")
    s, y = net.input("s", (gc.N, 3, 5)), net.input("y", (gc.N, 5), dtype="int64")
    flat, labels = net.input("flat", (gc.N, 3)), net.input("labels", (gc.N,), dtype="int64")
    w = net.input("w", (gc.N,))
    cases: dict[str, Callable[[], gc.Value]] = {
        "scores have shape (N, 3, 5), labels (N,)": lambda: gc.softmax_loss(s, labels),
        "weight is float32[N], there must be one for each label: (N, 5)": (
            lambda: gc.nll_loss(s, y, weight=w)
        ),
        "class_weight is float32[2], log_probs are float32[N, 3]": (
            lambda: gc.softmax_loss(flat, labels, class_weight=[1.0, 2.0])
        ),
        "ignore is a label, the labels are probabilities": (
            lambda: gc.softmax_loss(flat, flat, ignore=0)
        ),
        "margin is 2, it must be from -1 to 1": lambda: gc.cosine_loss(flat, flat, w, margin=2),
        "pos_weight is 0, it must be above 0": lambda: gc.sigmoid_loss(flat, flat, pos_weight=0),
        "scores are float32[N, 3], pos_weight has 2 numbers": (
            lambda: gc.sigmoid_loss(flat, flat, pos_weight=[1.0, 2.0])
        ),
        "nll_loss: reduction 'avg' is not one of": lambda: gc.nll_loss(s, y, reduction="avg"),
        "log_probs are float32[N, 3], target is float32[N]": lambda: gc.kl_loss(flat, w),
    }
    names = set(net.graph().nodes)
    for text, build in cases.items():
        with pytest.raises(gc.GraphError, match=re.escape(text)):
            build()
    assert set(net.graph().nodes) == names


@pytest.mark.parametrize("ignore", range(CLASSES))
def test_a_class_may_be_ignored(ignore: int) -> None:
    """Rows with its label have neither a loss nor a gradient; with it as a class others do."""
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(8, CLASSES)), np.arange(8) % CLASSES
    net = gc.Net("ignored", dtype="float64")
    y = net.input("y", gc.N, dtype="int64")
    s = net.parameter("s", scores.shape, init=scores)
    rows = net.input("rows", (gc.N, 8)) @ s
    net.loss("loss", gc.softmax_loss(rows, y, ignore=ignore))
    ex = gc.Executor(gc.compile(net, batch=8, backend="numpy"))
    kept = labels != ignore
    hot = np.eye(CLASSES)[labels]
    wanted = -log_probs(scores)[np.arange(8), labels][kept].mean()
    assert ex.forward(y=labels, rows=np.eye(8), train=True)["loss"] == pytest.approx(wanted)
    slopes = (np.exp(log_probs(scores)) - hot) * kept[:, None] / kept.sum()
    np.testing.assert_allclose(ex.backward()["s"], slopes, rtol=1e-12, atol=1e-12)
