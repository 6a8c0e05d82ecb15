"""Values that depend on the batch by their shape alone, and rows that only unread inputs have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc

BACKENDS = ("numpy", "native")
ROWS = (4, 3, 3, 1, 2, 4)


def executor(backend: str, **options: Any) -> gc.Executor:
    """One plan of a net whose parameter is repeated for each row; no input is read."""
    net = gc.Net("by_shape", dtype="float64")
    net.input("x", (gc.N, 2))
    net.input("z", (gc.N,), dtype="int64")
    repeated = gc.broadcast_to(net.parameter("p", (4,), init=1.0), (gc.N, 4))
    net.output("rows", repeated)
    net.output("sum", gc.sum(repeated))
    net.output("alone", gc.sum(net["p"]))
    net.loss("loss", gc.sum(repeated**2))
    options = {"batch": 4, "optimizer": gc.SGD(lr=0.0), **options}
    return gc.Executor(gc.compile(net, backend=backend, **options))


def x(n: int) -> np.ndarray[Any, Any]:
    return np.zeros((n, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_call_has_the_rows_that_it_is_fed(backend: str) -> None:
    ex = executor(backend)
    for n in ROWS:
        assert ex.step(x=x(n)) == 4 * n
        assert ex.step(z=np.zeros(n, np.int64)) == 4 * n
        assert ex.step(z=np.zeros(n, np.int64), x=x(n)) == 4 * n
        assert ex.forward(x=x(n))["sum"] == 4 * n
        assert ex.forward(x=x(n), train=True)["rows"].shape == (n, 4)
        assert ex.backward()["p"].tolist() == [2 * n] * 4
        assert ex.backward(rows=np.ones((n, 4)))["p"].tolist() == [n] * 4
    frozen = gc.freeze(ex, batch=4)
    assert [frozen.forward(x=x(n))["sum"] for n in ROWS] == [4 * n for n in ROWS]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{"optimizer": gc.SGD(lr=0.0, accumulate=2)}, {"shards": 2}])
def test_accumulated_and_sharded_steps_have_them_too(backend: str, options: Any) -> None:
    ex = executor(backend, **options)
    assert [ex.step(x=x(n)) for n in ROWS] == [4 * n for n in ROWS]


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_rows_come_in_pieces(backend: str) -> None:
    ex = executor(backend)
    assert ex.predict(x(11)).shape == (11, 4)
    history = gc.fit(ex, {"x": x(10)}, epochs=1)
    assert history.loss == pytest.approx([(16 * 4 + 16 * 4 + 8 * 2) / 10])


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_rows_what_depends_on_them_is_not_determined(backend: str) -> None:
    ex = executor(backend)
    assert ex.forward(x=x(2)).keys() == {"rows", "sum", "alone", "loss"}
    for _ in range(2):
        assert ex.forward() == {"alone": 4}
    for call in (ex.step, lambda: ex.forward(train=True)):
        with pytest.raises(gc.FeedError, match="nothing that was fed has rows") as error:
            call()
        assert "x=..." in error.value.hint


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("feeds", "sentence"),
    [
        ({"x": x(3), "z": np.zeros(2, np.int64)}, "'x' has 3 rows, 'z' has 2"),
        ({"x": np.zeros((3, 5))}, r"input 'x' takes \(N, 2\), the array has shape \(3, 5\)"),
        ({"x": x(5)}, "the batch has 5 rows, the plan takes up to 4"),
        ({"x": x(0)}, "the batch has 0 rows"),
    ],
)
def test_unread_inputs_are_refused_like_others(backend: str, feeds: Any, sentence: str) -> None:
    ex = executor(backend)
    for _ in range(2):
        for call in (ex.step, ex.forward):
            with pytest.raises(gc.FeedError, match=sentence):
                call(feeds)
        ex.step(x=x(2)), ex.forward(x=x(2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unread_input_agrees_with_those_that_are_read(backend: str) -> None:
    net = gc.Net("unread")
    read = net.input("x", (gc.N, 2))
    net.input("z", (gc.N,))
    net.output("twice", read * 2)
    ex = gc.Executor(gc.compile(net, batch=4, backend=backend))
    for n in (3, 2):
        assert ex.forward(x=np.ones((n, 2), np.float32), z=np.ones(n))["twice"].shape == (n, 2)
        with pytest.raises(gc.FeedError, match="rows"):
            ex.forward(x=np.ones((n, 2), np.float32), z=np.ones(n + 1))
