"""Losses over pairs of rows, through every way to run a net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import FeedError, GraphError
from graphc.ir.tensor_type import N, Shape, shape_at
from tests.extras import needs
from tests.pairs_of_rows import LOSSES, Loss, clip, clip_scores, feeds, of, slopes, torch_slopes

CAPACITY = 20
RUNS = [
    pytest.param("numpy", 1),
    pytest.param("native", 1, marks=pytest.mark.slow),
    pytest.param("native", 2, marks=pytest.mark.slow),
]
BOTH = [pytest.param("numpy", 1), pytest.param("native", 2)]


def executor(loss: Loss, backend: str, threads: int, **options: Any) -> gc.Executor:
    options = {"batch": CAPACITY, "optimizer": gc.SGD(lr=0.1), **options}
    return gc.Executor(gc.compile(loss.net(), backend=backend, threads=threads, **options), seed=3)


def parameters(ex: gc.Executor) -> dict[str, Any]:
    return {name: np.array(ex.parameters[name]) for name in ex.plan.wrt}


def total(ex: gc.Executor, rows: dict[str, Any]) -> float:
    found = ex.forward(rows, train=True)
    return sum(float(found[name]) for name in ex.plan.losses)


@pytest.mark.parametrize("backend, threads", RUNS)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_for_several_batches_of_one_plan(
    name: str, backend: str, threads: int
) -> None:
    loss = LOSSES[name]
    ex = executor(loss, backend, threads)
    p = parameters(ex)
    for n in (CAPACITY, 1, 2, 17):
        rows = of(loss.net(), feeds(n, n))
        assert total(ex, rows) == pytest.approx(loss.by_numpy(rows, p), rel=1e-12, abs=1e-14)
        wanted, found = slopes(loss, rows, p), ex.backward()
        for key in p:
            np.testing.assert_allclose(found[key], wanted[key], rtol=1e-6, atol=1e-8)
    assert ex.plan.verify().ok


@pytest.mark.parametrize("backend, threads", RUNS)
@pytest.mark.parametrize("name", LOSSES)
def test_torch_agrees(name: str, backend: str, threads: int) -> None:
    torch = needs("torch")
    loss = LOSSES[name]
    ex = executor(loss, backend, threads)
    for n in (CAPACITY, 3, 11):
        rows = of(loss.net(), feeds(n, n))
        value, gradients = torch_slopes(torch, loss, rows, parameters(ex))
        assert total(ex, rows) == pytest.approx(value, rel=1e-12)
        found = ex.backward()
        for key, wanted in gradients.items():
            np.testing.assert_allclose(found[key], wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("backend, threads", RUNS)
@pytest.mark.parametrize("name", LOSSES)
def test_fit_steps_on_whole_batches_and_on_a_short_last_one(
    name: str, backend: str, threads: int
) -> None:
    """Each batch is compared with itself alone, and the last one has the rows that are left."""
    loss, batch = LOSSES[name], 8
    ex = executor(loss, backend, threads, batch=batch)
    p, rows, values = parameters(ex), of(loss.net(), feeds(20)), []
    history = gc.fit(ex, rows, epochs=1, shuffle=False)
    for start in range(0, 20, batch):
        part = {key: array[start : start + batch] for key, array in rows.items()}
        values.append(loss.by_numpy(part, p) * len(next(iter(part.values()))))
        wanted = slopes(loss, part, p)
        p = {key: value - 0.1 * wanted[key] for key, value in p.items()}
    assert history.loss[0] == pytest.approx(sum(values) / 20, rel=1e-7)
    for key, value in parameters(ex).items():
        np.testing.assert_allclose(value, p[key], rtol=1e-6, atol=1e-8)


def test_validation_takes_whole_batches_too() -> None:
    loss = LOSSES["mmd"]
    ex = executor(loss, "numpy", 1, batch=8, optimizer=gc.SGD(lr=0.0))
    rows = of(loss.net(), feeds(20))
    history = gc.fit(ex, rows, validation=rows, epochs=1, shuffle=False)
    assert history.val_loss is not None
    assert history.val_loss[0] == pytest.approx(history.loss[0], rel=1e-12)


@pytest.mark.parametrize("backend, threads", BOTH)
def test_predict_runs_one_batch_or_refuses(backend: str, threads: int) -> None:
    ex = executor(LOSSES["clip"], backend, threads)
    rows = of(clip(), feeds(15))
    found = ex.predict(rows)
    np.testing.assert_allclose(found["scores"], clip_scores(rows, parameters(ex)), rtol=1e-12)
    assert found["image"].shape == (15, 4)
    more = of(clip(), feeds(CAPACITY + 1))
    with pytest.raises(FeedError, match="'scores' compares the rows of a batch with each other"):
        ex.predict(more)
    with pytest.raises(FeedError, match="21 rows are more than the plan's 20"):
        ex.evaluate(more)
    assert ex.predict(of(clip(), feeds(0)))["scores"].shape == (0, 0)
    larger = gc.Executor(gc.compile(clip(), batch=CAPACITY + 1), state=ex.state)
    assert larger.predict(more)["scores"].shape == (CAPACITY + 1, CAPACITY + 1)
    # what compares no rows takes any number of them
    assert ex.predict(a=more["a"]).shape == (CAPACITY + 1, 4)


def test_evaluate_of_part_files_refuses_more_than_a_batch(tmp_path: Path) -> None:
    ex = executor(LOSSES["mmd"], "numpy", 1)
    rows = of(LOSSES["mmd"].net(), feeds(CAPACITY + 1))
    np.savez(tmp_path / "part-0.npz", **rows)
    with pytest.raises(FeedError, match="'mmd' compares the rows of a batch"):
        ex.evaluate(str(tmp_path))
    np.savez(tmp_path / "part-0.npz", **{key: array[:-1] for key, array in rows.items()})
    part = {key: array[:-1] for key, array in rows.items()}
    wanted = LOSSES["mmd"].by_numpy(part, parameters(ex))
    assert ex.evaluate(str(tmp_path))["mmd"] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("shape", [(2, N, N), (2 * N, N), (2 * N * N,), (N, 2 * N)])
def test_no_rows_have_no_pairs(shape: Shape) -> None:
    net = gc.Net("twice")
    x = net.input("x", (N, 3))
    both = gc.stack([gc.matmul(x, gc.transpose(x))] * 2)
    net.output("pairs", gc.reshape(both, shape))
    found = gc.Executor(gc.compile(net, batch=4)).predict(np.zeros((0, 3)))
    assert found.shape == shape_at(shape, 0)


def test_shards_are_refused() -> None:
    with pytest.raises(
        GraphError, match=r"'matmul_1' compares the rows .* cannot be cut into shard"
    ):
        gc.compile(clip(), batch=8, shards=2, optimizer=gc.SGD(lr=0.1))


def test_labels_number_the_rows_of_their_batch() -> None:
    """A label is a column of (N, N), so it must be below the rows of the run, not of the plan."""
    net = gc.Net("labelled", dtype="float64")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.matmul(gc.affine(x, 3), gc.transpose(x)), y))
    for backend in ("numpy", "native"):
        ex = gc.Executor(gc.compile(net, batch=8, backend=backend))
        x5 = np.random.default_rng(0).normal(size=(5, 3))
        for _ in range(3):
            assert np.isfinite(ex.forward(x=x5, y=np.array([4, 0, 1, 2, 3]))["loss"])
        for bad in (5, -1):
            with pytest.raises(FeedError, match=f"the label {bad} at row 1, there are 5 classes"):
                ex.forward(x=x5, y=np.array([4, bad, 1, 2, 3]))


def test_labels_that_number_rows_are_not_shuffled(tmp_path: Path) -> None:
    net = gc.Net("labelled", dtype="float64")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.matmul(gc.affine(x, 3), gc.transpose(x)), y))
    ex = gc.Executor(gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.0)))
    rows = {"x": np.random.default_rng(0).normal(size=(8, 3)), "y": np.arange(8)}
    history = gc.fit(ex, rows, epochs=1, shuffle=False)
    assert history.loss == pytest.approx([ex.evaluate(rows)["loss"]], rel=1e-12)
    np.savez(tmp_path / "part", **rows)
    for data in (rows, str(tmp_path)):
        with pytest.raises(FeedError, match="'y' numbers the rows of a batch"):
            gc.fit(ex, data, epochs=1)


@pytest.mark.parametrize("backend, threads", BOTH)
def test_an_input_of_pairs_in_one_axis_has_the_rows_of_the_others(
    backend: str, threads: int
) -> None:
    net = gc.Net("flat")
    x, near = net.input("x", (N, 3)), net.input("near", (N * N, 2))
    net.output("h", gc.matmul(gc.reshape(near[:, 0], (N, N)), x))
    ex = gc.Executor(gc.compile(net, batch=8, wrt=[], backend=backend, threads=threads))
    assert ex.forward(x=np.ones((4, 3)), near=np.ones((16, 2)))["h"][0, 0] == 4
    with pytest.raises(FeedError, match="'x' has 4 rows, 'near' has 2"):
        ex.forward(x=np.ones((4, 3)), near=np.ones((4, 2)))
    with pytest.raises(FeedError, match=r"'near' takes \(N\*N, 2\), the array has shape \(8, 2\)"):
        ex.predict(np.ones((4, 3)), np.ones((8, 2)))


def test_pairs_that_are_not_needed_are_not_cut_either() -> None:
    net = gc.Net("beside")
    x, near = net.input("x", (gc.N, 3)), net.input("near", (gc.N, gc.N))
    z = net.output("z", gc.affine(x, 2))
    net.loss("loss", gc.mean(gc.matmul(near, z)))
    ex = gc.Executor(gc.compile(net, batch=4))
    assert ex.predict(np.zeros((5, 3))).shape == (5, 2)
    with pytest.raises(FeedError, match="'near' compares the rows of a batch with each other"):
        ex.predict(np.zeros((5, 3)), np.zeros((5, 5)))


@pytest.mark.parametrize("backend, threads", BOTH)
def test_an_input_may_have_the_batch_twice(backend: str, threads: int, tmp_path: Path) -> None:
    net = gc.Net("graph", dtype="float64")
    x, near = net.input("x", (gc.N, 3)), net.input("near", (gc.N, gc.N))
    h = gc.affine(gc.matmul(near, x), 2, name="h")
    net.output("h", h)
    net.loss("loss", gc.mean(h * h))
    plan = gc.compile(net, batch=6, backend=backend, threads=threads, optimizer=gc.SGD(lr=0.1))
    ex, rng = gc.Executor(plan), np.random.default_rng(0)
    for n in (6, 2, 5, 5, 1):
        a, k = rng.normal(size=(n, 3)), rng.normal(size=(n, n))
        wanted = k @ a @ ex.parameters["h.weight"] + ex.parameters["h.bias"]
        np.testing.assert_allclose(ex.predict(a, k), wanted, rtol=1e-12, atol=1e-12)
        ex.forward(x=a, near=k, train=True)
        gradient = a.T @ k.T @ np.ones((n, 2))
        np.testing.assert_allclose(ex.backward(h=np.ones((n, 2)))["h.weight"], gradient, rtol=1e-12)
        ex.step(x=a, near=k)
    for wrong in ((5, 4), (4, 5), (4, 4)):
        with pytest.raises(FeedError, match=r"near"):
            ex.forward(x=np.zeros((5, 3)), near=np.zeros(wrong))
    with pytest.raises(FeedError, match="'near' has the batch on two axes"):
        gc.fit(ex, (np.zeros((5, 3)), np.zeros((5, 5))))
    np.save(tmp_path / "near.npy", np.zeros((5, 5)))
    with pytest.raises(FeedError, match="'near' has the batch on two axes"):
        gc.fit(ex, (np.zeros((5, 3)), np.load(tmp_path / "near.npy", mmap_mode="r")))
    for part in ("a", "b"):
        np.savez(tmp_path / part, x=np.zeros((5, 3)), near=np.zeros((5, 5)))
    for use in (ex.evaluate, lambda folder: gc.fit(ex, folder)):
        with pytest.raises(FeedError, match="'near' has the batch on two axes"):
            use(str(tmp_path))
    history = gc.fit(ex, lambda epoch: iter([(np.ones((n, 3)), np.eye(n)) for n in (5, 4)]))
    assert history.loss[0] > 0


def test_cotangents_of_pairs() -> None:
    ex = executor(LOSSES["clip"], "numpy", 1)
    rows, rng = of(clip(), feeds(9)), np.random.default_rng(1)
    p, c = parameters(ex), rng.normal(size=(9, 9))
    ex.forward(rows, train=True)
    found = ex.backward(scores=c)["t"]
    assert found == pytest.approx((clip_scores(rows, p) * c).sum(), rel=1e-12)
    with pytest.raises(FeedError, match="scores"):
        ex.backward(scores=c[:, :8])


def test_a_saved_net_keeps_its_pairs(tmp_path: Path) -> None:
    ex = executor(LOSSES["triplets"], "numpy", 1)
    rows = of(LOSSES["triplets"].net(), feeds(12))
    ex.step(rows)
    gc.save(tmp_path / "net.gc", ex)
    again = gc.load(tmp_path / "net.gc", batch=12)
    assert again.evaluate(rows) == ex.evaluate(rows)


def test_memory_grows_with_the_square_of_the_batch() -> None:
    net = gc.Net("square")
    x = net.input("x", (gc.N, 2))
    net.output("scores", gc.matmul(x, gc.transpose(x), name="scores"))
    plan = gc.compile(net, batch=256)
    (line,) = [line for line in plan.memory.buffers() if line.name == "scores"]
    assert (line.formula, line.nbytes) == ("4*N*N", 4 * 256**2)
    arenas = [plan.memory.at(n).arena for n in (256, 512)]
    assert 3.9 < arenas[1] / arenas[0] < 4.1
    with pytest.raises(GraphError, match="batch=100 fits"):
        gc.compile(net, batch=256, budget=plan.memory.at(100).total)
