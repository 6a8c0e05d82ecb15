"""Rows of unequal length: what is fed, trained on and returned is that of each row alone."""

from __future__ import annotations

from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.validation.plans import validate_plan
from graphc.check.validation.validate import validate_model
from tests.plans import compiled

BACKENDS = ("numpy", "native")
STEPS, WIDTH = 7, 5
LENGTHS = "lengths:x,y"
Array = np.ndarray[Any, Any]
Rows = list[Array]


def network(dtype: str = "float32", lengths: bool = True) -> gc.Net:
    """A recurrent net with scores of each step (y) and of each row (c)."""
    net = gc.Net("rows", dtype=dtype)
    x = net.input("x", (gc.N, STEPS, 2))
    y = net.input("y", (gc.N, STEPS), dtype="int64")
    c = net.input("c", (gc.N,), dtype="int64")
    n = gc.lengths(x, y) if lengths else None
    u, start = net.parameter("u", (WIDTH, WIDTH)), net.constant(np.zeros(WIDTH, dtype))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(gc.affine(x, WIDTH, name="in") + h @ u)
        return h, h

    h0 = gc.broadcast_to(start, (gc.N, WIDTH))
    states, last = gc.scan(step, x, h0, lengths=n, name="rnn")
    each = net.output("each", gc.affine(states, 4, axis=-1, name="each"))
    scores = net.output("scores", gc.affine(last, 3, name="scores"))
    mask = None if n is None else gc.length_mask(n, STEPS)
    by_step = gc.softmax_loss(gc.transpose(each, (0, 2, 1)), y, weight=mask, name="steps")
    net.loss("by_step", by_step)
    net.loss("by_row", gc.softmax_loss(scores, c))
    return net


def executor(batch: int = 8, backend: str | None = None, **options: Any) -> gc.Executor:
    options = {"optimizer": gc.SGD(lr=0.1), **options}
    return gc.Executor(compiled(network, batch=batch, backend=backend, **options), seed=3)


def rows(count: int, dtype: str = "float32") -> tuple[Rows, Rows, Array]:
    rng = np.random.default_rng(count)
    lengths = rng.permutation([1, STEPS, *rng.integers(1, STEPS + 1, count - 2)])
    x = [rng.normal(size=(t, 2)).astype(dtype) for t in lengths]
    return x, [rng.integers(0, 4, t) for t in lengths], rng.integers(0, 3, count)


def padded(given: Rows, value: float = 0) -> Array:
    found = np.full((len(given), STEPS, *given[0].shape[1:]), value, given[0].dtype)
    for i, row in enumerate(given):
        found[i, : len(row)] = row
    return found


def by_numpy(ex: gc.Executor, x: Array) -> tuple[Array, Array]:
    """The scores of one row's steps and of the row, in float64."""
    p = {name: np.asarray(array, float) for name, array in ex.parameters.items()}
    h, each = np.zeros(WIDTH), []
    for step in x:
        h = np.tanh(step @ p["rnn.in.weight"] + p["rnn.in.bias"] + h @ p["u"])
        each.append(h @ p["each.weight"] + p["each.bias"])
    return np.array(each), h @ p["scores.weight"] + p["scores.bias"]


def cross_entropy(scores: Array, label: int) -> float:
    return float(np.log(np.exp(scores).sum()) - scores[label])


# ------------------------------------------------------------------ what is fed


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_row_has_the_bits_of_the_row_alone(backend: str) -> None:
    ex, (x, _, _) = executor(backend=backend), rows(8)
    together = ex.forward(x=x)
    for i, row in enumerate(x):
        alone = ex.forward(x=row[None])
        assert np.array_equal(alone["scores"][0], together["scores"][i])
        assert np.array_equal(alone["each"][0, : len(row)], together["each"][i, : len(row)])
        each, scores = by_numpy(ex, row)
        np.testing.assert_allclose(together["each"][i, : len(row)], each, atol=1e-5)
        np.testing.assert_allclose(together["scores"][i], scores, atol=1e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_count_the_steps_that_there_are(backend: str) -> None:
    x, y, c = rows(8)
    ex = executor(backend=backend)
    found = ex.forward(x=x, y=y, c=c)
    each = [by_numpy(ex, row)[0] for row in x]
    steps = zip(np.concatenate(each), np.concatenate(y), strict=True)
    losses = [cross_entropy(scores, label) for scores, label in steps]
    assert found["by_step"] == pytest.approx(np.mean(losses), rel=1e-5)
    # in pieces of other numbers of rows, and so of steps
    pieces = gc.Executor(gc.compile(network(), batch=3, backend=backend), state=ex.state)
    assert pieces.evaluate(x, y, c)["by_step"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert gc.fit(ex, (x, y, c), batch=3, validation=(x, y, c)).val_loss


def test_all_ways_to_feed_the_same_rows_are_the_same() -> None:
    x, y, c = rows(6)
    n = [len(row) for row in x]
    ways: list[dict[str, Any]] = [
        {"x": x, "y": y},
        {"x": tuple(x), "y": [row.tolist() for row in y]},
        {"x": padded(x), "y": padded(y), LENGTHS: n},
        {"x": padded(x, np.nan), "y": padded(y), LENGTHS: np.array(n, np.int64)},
        {"x": x, "y": y, LENGTHS: n},
        {"x": [row.astype(np.float64) for row in x], "y": np.array([*y, None], object)[:-1]},
    ]
    results = []
    for feeds in ways:
        ex = executor()
        losses = [ex.step(feeds, c=c) for _ in range(3)]
        results.append((losses, ex.parameters.flat().tobytes()))
    assert all(result == results[0] for result in results)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("steps", [1, 4, STEPS])
def test_an_array_may_have_fewer_steps(steps: int) -> None:
    x, y, c = np.ones((3, steps, 2), np.float32), np.ones((3, steps), int), [0, 1, 2]
    ex, other = executor(), executor()
    other.forward(x=rows(8)[0])  # leaves numbers behind the ends
    assert ex.step(x=x, y=y, c=c) == other.step(x=list(x), y=list(y), c=c)
    np.testing.assert_allclose(ex.forward(x=x)["scores"][0], by_numpy(ex, x[0])[1], atol=1e-5)


def test_numbers_of_the_run_before_do_not_stay() -> None:
    ex, (x, y, c) = executor(), rows(8)
    short = [row[:1] for row in x]
    want = executor().forward(x=short)["scores"]
    ex.forward(x=x, y=y, c=c)
    assert np.array_equal(ex.forward(x=short)["scores"], want)
    assert ex.padded({"x": short})["x"][:, 1:].any() == 0


def test_a_refused_run_leaves_the_saved_forward_pass() -> None:
    ex, (x, y, c) = executor(), rows(8)
    ex.forward(x=x, y=y, c=c, train=True)
    want = ex.backward()
    ex.forward(x=x, y=y, c=c, train=True)
    with pytest.raises(gc.FeedError):
        ex.forward(x=[2 * row for row in x], y=[row + 99 for row in y], c=c)
    found = ex.backward()
    assert all(np.array_equal(want[name], found[name]) for name in want)


X = rows(3)[0]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "above": ({"x": [np.ones((8, 2))]}, "row 0 of input 'x' has shape (8, 2)"),
    "array above": ({"x": np.ones((2, 9, 2))}, "takes 1 to 7 steps, the array has 9"),
    "none": ({"x": [np.ones((1, 2)), np.ones((0, 2))]}, "row 1 of input 'x' has shape (0, 2)"),
    "inner": ({"x": [np.ones((3, 3))]}, "it must be (t, 2) with 1 to 7 steps t"),
    "ragged inside": ({"x": [[[1, 2], [3]]]}, "its parts have different lengths"),
    "text": ({"x": [np.array([["a", "b"]])]}, "takes float32, the array is text"),
    "other input": ({"x": X, "y": [np.ones(6, int)] * 3}, "row 0 has 1 step by 'x' and 6 by 'y'"),
    "other rows": ({"x": X, "y": [np.ones(1, int)]}, "'x' has 3 rows, 'y' has 1"),
    "one length": ({"x": np.ones((2, 7, 2)), LENGTHS: [3]}, "'x' has 2 rows, 'lengths:x,y' has 1"),
    "length 0": ({"x": np.ones((2, 7, 2)), LENGTHS: [3, 0]}, "holds the length 0 at row 1"),
    "length -1": ({"x": np.ones((2, 7, 2)), LENGTHS: [-1, 3]}, "the length -1 at row 0"),
    "length 8": ({"x": np.ones((2, 7, 2)), LENGTHS: [8, 3]}, "it must be 1 to 7"),
    "beyond the array": ({"x": np.ones((1, 5, 2)), LENGTHS: [6]}, "6 steps by 'lengths:x,y' and 5"),
    "not the row's": ({"x": [np.ones((5, 2))], LENGTHS: [4]}, "4 steps by 'lengths:x,y' and 5"),
    "not whole": ({"x": np.ones((1, 5, 2)), LENGTHS: [4.5]}, "takes int32"),
    "too many rows": ({"x": X * 3}, "the batch has 9 rows, the plan takes up to 8"),
}


@pytest.mark.one_in(6)
@pytest.mark.parametrize("wrong", WRONG)
def test_refused(wrong: str) -> None:
    feeds, message = WRONG[wrong]
    ex = executor()
    with pytest.raises(gc.FeedError) as refused:
        ex.forward(feeds)
    assert message in str(refused.value)


@pytest.mark.parametrize("x", [X, np.ones((3, 5, 2))], ids=["list", "array"])
def test_without_lengths_the_error_says_how_to_declare_them(x: Any) -> None:
    ex = gc.Executor(gc.compile(network(lengths=False), batch=8))
    with pytest.raises(gc.FeedError, match=r"lengths=gc\.lengths\(x\)") as refused:
        ex.forward(x=x)
    assert "test_lengths.py" in str(refused.value)


def test_other_shapes_have_no_hint_about_loops() -> None:
    net = gc.Net("plain")
    net.output("y", gc.affine(net.input("x", (gc.N, 7)), 2))
    with pytest.raises(gc.FeedError) as refused:
        gc.Executor(gc.compile(net, batch=8)).forward(x=np.ones((3, 5)))
    assert "gc.lengths" not in str(refused.value)


# ------------------------------------------------------------------ declarations


def test_lengths_are_declared_once() -> None:
    net = gc.Net("net")
    x, y = net.input("x", (gc.N, 7, 2)), net.input("y", (gc.N, 7))
    with net.block("inside"):
        n = gc.lengths(x, y)
    assert gc.lengths(x, y).name == n.name == LENGTHS
    with pytest.raises(gc.GraphError, match="'x' has lengths already"):
        gc.lengths(x)
    with pytest.raises(gc.GraphError, match="different numbers of steps"):
        gc.lengths(net.input("z", (gc.N, 6)), net.input("v", (gc.N, 5)))
    for other in (x * 2, net.input("w", (gc.N,)), net.parameter("p", (3, 4))):
        with pytest.raises(gc.GraphError, match=r"it must be an input \(N, T, ...\)"):
            gc.lengths(other)


def test_the_mask_is_1_where_a_row_has_steps() -> None:
    net = gc.Net("net")
    n = gc.lengths(net.input("x", (gc.N, 4)))
    net.output("mask", gc.length_mask(n, 4))
    net.output("bool", gc.length_mask(n, 4, dtype="bool"))
    found = gc.Executor(gc.compile(net, batch=8)).forward(x=[np.ones(3), np.ones(1)])
    assert found["mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert found["mask"].dtype == np.float32
    assert found["bool"].tolist() == [[True, True, True, False], [True, False, False, False]]
    with pytest.raises(gc.GraphError, match="whole numbers"):
        gc.length_mask(net["x"], 4)


# ------------------------------------------------------------------ through everything


@pytest.mark.parametrize("backend", BACKENDS)
def test_predict_returns_rows_in_their_order(backend: str) -> None:
    ex, (x, _, _) = executor(batch=4, backend=backend), rows(23)
    found = ex.predict(x)
    for i, row in enumerate(x):
        alone = ex.forward(x=row[None])
        assert np.array_equal(found["scores"][i], alone["scores"][0]), i
        assert np.array_equal(found["each"][i], alone["each"][0]), i
    assert ex.predict([])["scores"].shape == (0, 3)


def test_gradients_agree_with_differences() -> None:
    x, y, c = rows(5, "float64")
    report = gc.grad_check(network("float64"), {"x": x, "y": y, "c": c})
    assert report.ok, report
    n = [len(row) for row in x]
    feeds = {"x": padded(x), "y": padded(y), "c": c, LENGTHS: n}
    assert gc.grad_check(network("float64"), feeds).ok


def test_frozen_plans_take_the_same_rows() -> None:
    ex, (x, _, _) = executor(), rows(8)
    frozen = gc.freeze(ex, batch=8)
    np.testing.assert_allclose(frozen.predict(x)["scores"], ex.predict(x)["scores"], atol=1e-5)


def test_a_loaded_net_knows_its_lengths(tmp_path: Path) -> None:
    net = gc.Net("sums")
    x = net.input("x", (gc.N, 4))
    net.output("sum", gc.sum(gc.exp(x) * gc.length_mask(gc.lengths(x), 4), 1))
    ex = gc.Executor(gc.compile(net, batch=2))
    gc.save(tmp_path / "net.gc", ex)
    for other in (ex, gc.load(tmp_path / "net.gc", batch=3)):
        assert other.predict([np.zeros(3), np.zeros(1), np.zeros(4)]).tolist() == [3, 1, 4]


@pytest.mark.slow
def test_shards_keep_the_lengths_of_their_rows() -> None:
    x, y, c = rows(8)
    whole, cut = executor(), executor(shards=4)
    for _ in range(3):
        assert cut.step(x=x, y=y, c=c) == pytest.approx(whole.step(x=x, y=y, c=c), rel=1e-5)
    np.testing.assert_allclose(cut.parameters.flat(), whole.parameters.flat(), atol=1e-5)


# ------------------------------------------------------------------ training


@pytest.mark.one_in(2)
@pytest.mark.parametrize("by_length", [False, True])
def test_fit_on_lists_is_fit_on_padded_arrays(by_length: bool) -> None:
    x, y, c = rows(21)
    n = [len(row) for row in x]
    whole = {"x": padded(x), "y": padded(y), "c": c, LENGTHS: n}
    results = []
    for data in ((x, y, c), whole):
        ex = executor(batch=4)
        history = gc.fit(ex, data, epochs=3, validation=data, by_length=by_length)
        results.append((history.loss, history.val_loss, ex.parameters.flat().tobytes()))
    assert results[0] == results[1]


def batches(**options: Any) -> list[list[int]]:
    """The lengths in each batch of an epoch."""
    x, y, c = rows(22)
    seen: list[list[int]] = []

    class Seen(gc.Executor):
        def step(self, feeds: Any = None, /, **by_name: Any) -> float:
            seen.append(feeds[LENGTHS].tolist())
            return super().step(feeds, **by_name)

    plan = gc.compile(network(), batch=4, optimizer=gc.SGD(lr=0.1))
    gc.fit(Seen(plan), (x, y, c), by_length=True, **options)
    assert sorted(chain(*seen)) == sorted(map(len, x))
    return seen


def test_batches_by_length_have_rows_of_like_length() -> None:
    sizes, lengths = [4, 4, 4, 4, 4, 2], sorted(map(len, rows(22)[0]))
    shuffled = batches()
    assert [len(batch) for batch in shuffled] == sizes
    whole = [batch for batch in shuffled if len(batch) == 4]
    ordered = sorted(whole, key=lambda batch: (min(batch), max(batch)))
    for before, after in pairwise(ordered):
        assert max(before) <= min(after)
    assert whole != ordered, "batches come in a random order"
    assert shuffled == batches() != batches(seed=1)
    assert list(chain(*batches(shuffle=False))) == lengths


def test_by_length_needs_lengths() -> None:
    x, y, c = rows(6)
    ex = gc.Executor(gc.compile(network(lengths=False), batch=8, optimizer=gc.SGD(lr=0.1)))
    with pytest.raises(gc.GraphError, match="no input of the net has lengths"):
        gc.fit(ex, (padded(x), padded(y), c), by_length=True)
    with pytest.raises(gc.GraphError, match="come in batches already"):
        gc.fit(executor(), lambda epoch: [(x, y, c)], by_length=True)


def test_functions_and_generators_yield_lists_of_rows() -> None:
    x, y, c = rows(12)
    cut = [slice(i, i + 4) for i in range(0, 12, 4)]

    def made(epoch: int) -> Any:
        return ((x[part], y[part], c[part]) for part in cut)

    arrays, function, generator = executor(batch=4), executor(batch=4), executor(batch=4)
    want = gc.fit(arrays, (x, y, c), shuffle=False).loss
    assert gc.fit(function, made).loss == want == gc.fit(generator, made(1)).loss


def test_data_that_do_not_fit_are_refused_before_training() -> None:
    ex, (x, y, c) = executor(batch=4), rows(12)
    before = ex.parameters.flat().tobytes()
    for wrong in (
        (x, y[::-1], c),
        ([*x[:-1], np.ones((9, 2))], y, c),
        (x, [*y[:-1], y[-1] + 9], c),
    ):
        with pytest.raises(gc.FeedError):
            gc.fit(ex, wrong)
    assert ex.parameters.flat().tobytes() == before


def test_weights_of_rows_and_classes() -> None:
    net = network()
    w = net.input("w", (gc.N,))
    net.loss("weighted", gc.softmax_loss(net["scores"], net["c"], weight=w))
    x, _, c = rows(12)
    ex = gc.Executor(gc.compile(net, batch=5, optimizer=gc.SGD(lr=0.1), losses=["weighted"]))
    some = np.arange(12.0)
    history = gc.fit(
        ex, {"x": x, "c": c}, sample_weight=some, class_weight={0: 3.0}, by_length=True
    )
    assert np.isfinite(history.loss[0])
    weights = some * np.where(c == 0, 3.0, 1.0)
    losses = [cross_entropy(by_numpy(ex, row)[1], k) for row, k in zip(x, c, strict=True)]
    found = ex.evaluate(x=x, c=c, w=weights)["weighted"]
    assert found == pytest.approx(np.average(losses, weights=weights), rel=1e-5)


@pytest.mark.parametrize("said", [True, False])
def test_part_files_of_unequal_steps_are_the_same_rows(said: bool, tmp_path: Path) -> None:
    """They hold the lengths of their rows, or all rows of a file have the steps of its arrays."""
    x, y, c = rows(13)
    for at in (slice(0, 6), slice(6, 9), slice(9, 13)):
        steps = max(map(len, x[at]))
        if not said:
            x[at], y[at] = ([*padded(one[at])[:, :steps]] for one in (x, y))
        lengths = {LENGTHS: np.array([len(row) for row in x[at]])} if said else {}
        arrays = {"x": padded(x[at])[:, :steps], "y": padded(y[at])[:, :steps], "c": c[at]}
        np.savez(tmp_path / f"{at.start:02}.npz", **arrays, **lengths)
    options: Any = {"epochs": 2, "batch": 4, "shuffle": False}
    by_files, by_lists = executor(backend="numpy"), executor(backend="numpy")
    found = gc.fit(by_files, tmp_path, validation=tmp_path, **options)
    wanted = gc.fit(by_lists, {"x": x, "y": y, "c": c}, validation=(x, y, c), **options)
    assert found.loss == wanted.loss
    np.testing.assert_allclose(found.val_loss, wanted.val_loss, rtol=1e-6)
    assert by_files.evaluate(tmp_path) == pytest.approx(by_lists.evaluate(x, y, c), rel=1e-6)


def test_lengths_may_lie_in_a_file(tmp_path: Path) -> None:
    x, y, c = rows(12)
    arrays = {"x": padded(x), "y": padded(y), "c": c, LENGTHS: np.array([len(row) for row in x])}
    mapped = {}
    for i, (name, array) in enumerate(arrays.items()):
        np.save(tmp_path / f"{i}.npy", array)
        mapped[name] = np.load(tmp_path / f"{i}.npy", mmap_mode="r")
    histories = [gc.fit(executor(backend="numpy"), data, epochs=1) for data in (arrays, mapped)]
    assert histories[0].loss == histories[1].loss


@pytest.mark.parametrize("first", ["x", "label"])
def test_standardised_steps_have_the_statistics_of_all_steps_that_there_are(first: str) -> None:
    """Also of an input that is not the one that lengths are named for."""
    net = gc.Net("scaled", dtype="float64")
    x, label = net.input("x", (gc.N, STEPS, 2)), net.input("label", (gc.N, STEPS))
    net.output("scaled", gc.standardize(x, name="s"))
    net.output("label_too", label * 2)
    n = gc.lengths(x, label) if first == "x" else gc.lengths(label, x)
    net.output("mask", gc.length_mask(n, STEPS))
    given, _, _ = rows(12, "float64")
    given = [5 * row + [2, -3] for row in given]
    weight = np.arange(12.0)
    lengths = np.array(list(map(len, given)))
    every, by = np.concatenate(given), np.repeat(weight, lengths)
    mean = np.average(every, 0, by)
    scale = np.sqrt(np.average((every - mean) ** 2, 0, by))
    both = {"x": given, "label": [row[:, 0] for row in given]}
    whole = {name: padded(array, 99) for name, array in both.items()}
    for feeds in (both, whole | {n.name: lengths}):
        ex = gc.Executor(gc.compile(net, batch=5, backend="numpy"))
        gc.fit_standardize(ex, feeds, weight=weight)
        np.testing.assert_allclose(ex.state["s.mean"], np.tile(mean, (STEPS, 1)))
        np.testing.assert_allclose(ex.state["s.scale"], np.tile(scale, (STEPS, 1)))


@pytest.mark.slow
def test_validation_draws_lengths_that_rows_may_have() -> None:
    validate_model(network().graph(), 3)
    validate_plan(gc.compile(network(), batch=3, optimizer=gc.SGD(lr=0.1), backend="numpy"))
