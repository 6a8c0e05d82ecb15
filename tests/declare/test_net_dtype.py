"""A net's dtype is that of all its floats for which no operand decides it."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest

import graphc as gc

MADE: dict[str, Callable[[gc.Net, gc.Value], gc.Value]] = {
    "input": lambda net, ids: net.input("z", (gc.N, 2)),
    "parameter": lambda net, ids: net.parameter("w", (3, 2)),
    "a number": lambda net, ids: net.constant(0.5),
    "numbers": lambda net, ids: net.constant([0.5, 1.5]),
    "embedding": lambda net, ids: gc.embedding(ids, 7, 2),
    "one_hot": lambda net, ids: gc.one_hot(ids, 7),
    "positions": lambda net, ids: gc.learned_positions(gc.one_hot(ids, 7)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MADE)
def test_what_a_net_makes_has_its_dtype(name: str, dtype: str) -> None:
    net = gc.Net("n", dtype=dtype)
    assert MADE[name](net, net.input("ids", (gc.N, 3), dtype="int64")).dtype == dtype


def test_a_dtype_that_is_given_is_kept() -> None:
    net = gc.Net("n", dtype="float64")
    ids = net.input("ids", (gc.N, 3), dtype="int64")
    assert gc.embedding(ids, 7, 2, dtype="float32").dtype == "float32"
    assert gc.one_hot(ids, 7, dtype=np.float32).dtype == "float32"  # type: ignore[arg-type]
    assert net.constant(np.ones(2, np.float32)).dtype == "float32"
    assert gc.Net("n").constant(np.ones(2)).dtype == "float64"


def test_a_net_of_float64_trains_embeddings_in_float64() -> None:
    net = gc.Net("n", dtype="float64")
    ids = net.input("ids", (gc.N, 3), dtype="int64")
    words = gc.mean(gc.embedding(ids, 7, 2, name="table"), axis=1)
    net.loss("loss", gc.mean(gc.affine(words, 1) ** 2))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy")
    assert "float32" not in str(plan)


def test_a_net_that_goes_on_keeps_its_dtype() -> None:
    net = gc.Net("n", dtype="float64")
    net.input("x", (gc.N, 3))
    assert gc.Net.of(net.graph(), "float64").dtype == deepcopy(net).dtype == "float64"
