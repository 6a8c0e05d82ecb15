"""Reading and writing by indices, as users do it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import FeedError, GraphError
from graphc.ir.op import Array

BACKENDS = ("numpy", "native")
TABLE = np.arange(12.0).reshape(4, 3)


def run(value: gc.Value, net: gc.Net, backend: str = "numpy", **feeds: Any) -> Array:
    net.output("out", value)
    plan = gc.compile(net, batch=8, outputs="out", losses=[], backend=backend)
    return gc.Executor(plan).forward(**feeds)["out"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_is_take(backend: str, axis: int) -> None:
    net = gc.Net("net", dtype="float64")
    k = net.input("k", (gc.N, 2), dtype="int64")
    places = np.random.default_rng(0).integers(0, 3, (5, 2))
    found = run(gc.gather(net.constant(TABLE), k, axis), net, backend, k=places)
    np.testing.assert_array_equal(found, TABLE.take(places, axis))


def test_indices_may_be_a_list_an_array_or_a_number() -> None:
    for indices in ([3, 0, 0], np.array([[1, 2]], np.int32), 2):
        net = gc.Net("net", dtype="float64")
        found = run(gc.gather(net.constant(TABLE), indices), net)
        np.testing.assert_array_equal(found, TABLE[indices])


@pytest.mark.parametrize("backend", BACKENDS)
def test_elements_of_each_row(backend: str) -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 3))
    k = net.input("k", (gc.N, 4), dtype="int32")
    places = np.array([[0, 1, 2, 0], [2, 2, 1, 0], [0, 0, 0, 0], [1, 2, 0, 1]], np.int32)
    found = run(gc.gather_elements(x, k, axis=1), net, backend, x=TABLE, k=places)
    np.testing.assert_array_equal(found, np.take_along_axis(TABLE, places.astype(int), 1))


def test_the_last_of_several_updates_stays_and_has_the_gradient() -> None:
    net = gc.Net("net", dtype="float64")
    moved = net.parameter("moved", (4,), init=np.array([1.0, 2.0, 3.0, 4.0]))
    out = gc.scatter_elements(net.constant(np.zeros(3)), [0, 2, 0, 2], moved)
    net.output("out", out)
    net.loss("loss", gc.sum(out * np.array([5.0, 6.0, 7.0]).tolist()[0]))
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=gc.SGD(0.1), backend="numpy"))
    np.testing.assert_array_equal(ex.forward(train=True)["out"], [3, 0, 4])
    np.testing.assert_array_equal(ex.backward()["moved"], [0, 0, 5, 5])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("none", [4, 1, 3]), ("add", [6, 1, 4]), ("max", [4, 1, 3]), ("min", [1, 1, 1])],
)
def test_reductions(reduction: Any, expected: list[float]) -> None:
    net = gc.Net("net", dtype="float64")
    updates = net.constant(np.array([1.0, 3.0, 4.0]))
    x = net.constant(np.ones(3))
    found = run(gc.scatter_elements(x, [0, 2, 0], updates, reduction=reduction), net)
    np.testing.assert_array_equal(found, expected)


def test_slices_by_several_indices() -> None:
    cube = np.arange(24.0).reshape(2, 3, 4)
    net = gc.Net("net", dtype="float64")
    x = net.constant(cube)
    net.output("whole", gc.gather_nd(x, [[0, 1, 2], [1, 2, 3]]))
    net.output("rows", gc.gather_nd(x, [[[0, 1]], [[1, 2]]]))
    net.output("each", gc.gather_nd(x, [[[2], [0]], [[1], [1]]], batch_dims=1))
    updates = net.constant(np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    net.output("written", gc.scatter_nd(x, [[0, 1], [1, 0]], updates))
    net.output("added", gc.scatter_nd(x, [[0, 1], [0, 1]], updates, reduction="add"))
    found = gc.Executor(gc.compile(net, batch=1, backend="numpy")).forward()
    np.testing.assert_array_equal(found["whole"], [cube[0, 1, 2], cube[1, 2, 3]])
    np.testing.assert_array_equal(found["rows"], [[cube[0, 1]], [cube[1, 2]]])
    np.testing.assert_array_equal(found["each"], [cube[0, [2, 0]], cube[1, [1, 1]]])
    written, added = cube.copy(), cube.copy()
    written[0, 1], written[1, 0] = [1, 2, 3, 4], [5, 6, 7, 8]
    added[0, 1] += [6, 8, 10, 12]
    np.testing.assert_array_equal(found["written"], written)
    np.testing.assert_array_equal(found["added"], added)


def test_each_row_of_a_batch_by_its_own_indices() -> None:
    net = gc.Net("net", dtype="float64")
    x, k = net.input("x", (gc.N, 4, 2)), net.input("k", (gc.N, 3, 1), dtype="int64")
    rows = np.random.default_rng(0).normal(size=(5, 4, 2))
    places = np.random.default_rng(1).integers(0, 4, (5, 3, 1))
    found = run(gc.gather_nd(x, k, batch_dims=1), net, x=rows, k=places)
    np.testing.assert_array_equal(
        found, [row[k[:, 0]] for row, k in zip(rows, places, strict=True)]
    )


# ---------------------------------------------------------------------- embedding


def words(threads: int | None = None, backend: str = "native") -> gc.Executor:
    net = gc.Net("words")
    ids, y = net.input("ids", (gc.N, 6), dtype="int64"), net.input("y", gc.N, dtype="int64")
    rows = gc.embedding(ids, 50, 16, name="words")
    net.loss("loss", gc.softmax_loss(gc.affine(rows, 3), y))
    adam = gc.Adam(0.01)
    plan = gc.compile(net, batch=512, optimizer=adam, backend=backend, threads=threads)
    return gc.Executor(plan, seed=3)


def batch(rows: int = 512) -> dict[str, Array]:
    rng = np.random.default_rng(5)
    ids = rng.zipf(1.5, (rows, 6)).clip(1, 50) - 1  # a few words are frequent
    return {"ids": ids, "y": ids[:, 0] % 3}


@pytest.mark.parametrize("backend", BACKENDS)
def test_embeddings_are_trained(backend: str) -> None:
    ex = words(backend=backend)
    losses = [ex.step(**batch(64)) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_row_that_is_named_often_has_the_sum_of_its_gradients() -> None:
    ex, rows = words(backend="numpy"), batch(64)
    ex.forward(rows, train=True)
    found = ex.backward()["words.weight"]
    ex.forward(rows, train=True)
    moved = ex.parameters["words.weight"].astype("float64")
    for place in ((0, 0), (1, 3), (49, 1)):
        slope = []
        for step in (-1e-2, 1e-2):
            weight = moved.copy()
            weight[place] += step
            ex.parameters["words.weight"] = weight
            slope.append(float(ex.forward(rows, train=True)["loss"]))
        assert abs((slope[1] - slope[0]) / 2e-2 - found[place]) < 2e-4


def test_threads_change_no_bit_of_an_embedding() -> None:
    states = []
    for threads in (1, 2):
        ex = words(threads)
        for _ in range(3):
            ex.step(**batch())
        states.append(ex.parameters.flat())
    np.testing.assert_array_equal(*states)


def test_weights_are_shared_and_rows_start_normal() -> None:
    net = gc.Net("tied")
    ids = net.input("ids", gc.N, dtype="int64")
    rows = gc.embedding(ids, 2000, 8, name="words")
    again = gc.embedding(ids, weight=net["words.weight"])
    net.output("same", rows - again)
    ex = gc.Executor(gc.compile(net, batch=4))
    assert not ex.forward(ids=[1, 2])["same"].any()
    weight = ex.parameters["words.weight"]
    assert abs(weight.std() - 1) < 0.05
    assert weight.shape == (2000, 8)


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [-1, 50])
def test_an_id_fed_out_of_bounds_raises_an_error_that_names_the_node(
    backend: str, bad: int
) -> None:
    ex, rows = words(backend=backend), batch(8)
    before = ex.parameters.flat()
    rows["ids"][3, 2] = bad
    message = rf"'ids' holds the index {bad} at row 3, there are 50 entries\n.*\n +indexed +words"
    with pytest.raises(FeedError, match=message):
        ex.step(**rows)
    np.testing.assert_array_equal(ex.parameters.flat(), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_computed_indices_are_held_within_bounds(backend: str) -> None:
    net = gc.Net("net", dtype="float64")
    k = net.input("k", gc.N, dtype="int64")
    found = run(gc.gather(net.constant(TABLE), k * 2 - 1), net, backend, k=[0, 1, 2, 5])
    np.testing.assert_array_equal(found, TABLE[[0, 1, 3, 3]])


def test_mistakes_raise_errors() -> None:
    net = gc.Net("net")
    x, k = net.input("x", (gc.N, 3)), net.input("k", (gc.N, 2), dtype="int64")
    flat = net.input("flat", gc.N, dtype="int64")
    for wrong, message in (
        (lambda: gc.gather(x, [0]), "axis 0 of .N, 3. is the batch, which cannot be indexed"),
        (lambda: gc.gather(x, x, 1), "the indices are float32, not whole numbers"),
        (lambda: gc.gather(x, [0.5], 1), "the indices are float64, not whole numbers"),
        (lambda: gc.gather(x, [0, 3], 1), "index 3 is out of range for 3 entries"),
        (lambda: gc.gather(x, [-1], 1), "index -1 is out of range for 3 entries"),
        (lambda: gc.gather(x, k, 2), "axis 2 does not exist"),
        (lambda: gc.gather_elements(x, flat, 1), "x has shape .N, 3., the indices .N,."),
        (lambda: gc.scatter_elements(x, k, x, 1), "there is one for each index"),
        (lambda: gc.scatter_elements(x, k, k, 1, reduction="mul"), "'mul' is not one of"),  # type: ignore[arg-type]
        (lambda: gc.gather_nd(x, k), "the indices name rows of the batch"),
        (lambda: gc.gather_nd(x, [[0, 1, 2]]), "their last axis indexes x's first"),
        (lambda: gc.gather_nd(x, [[0], [1]], batch_dims=1), "the first 1 axes differ"),
        (lambda: gc.embedding(k), "count is None, it must be a whole number from 1 up"),
        (lambda: gc.embedding(k, 10, 0), "width is 0, it must be a whole number from 1 up"),
        (lambda: gc.embedding(x, 10, 4), "the indices are float32, not whole numbers"),
        (lambda: gc.embedding(k, 10, 4, init="best"), "parameter 'embedding_1.weight'"),
    ):
        before = len(net.builder.nodes)
        with pytest.raises(GraphError, match=message):
            wrong()
        assert len(net.builder.nodes) == before, message


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(gc.N,), (gc.N, 2)])
def test_a_computed_index_of_no_class_is_a_row_of_zeros(shape: Any, backend: str) -> None:
    net = gc.Net("classes")
    ids = net.input("ids", shape, dtype="int64")
    net.output("hot", gc.one_hot(ids - 1, 3))
    given = np.array([[0, 1], [3, 4]])[:, : len(shape)].reshape(2, *shape[1:])
    hot = gc.Executor(gc.compile(net, batch=2, backend=backend)).forward(ids=given)["hot"]
    assert np.array_equal(hot, (given - 1)[..., None] == np.arange(3))
