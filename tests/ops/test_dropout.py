"""Dropout: masks are keyed by a seed and a counter, and a probability is a number."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.tensor_type import Batch, TensorType
from graphc.ops.dropout import Dropout, DropoutMask

X = TensorType((Batch(1), 3), "float32")
SEED, DRAWS = TensorType((), "uint64"), TensorType((), "int64")


def test_keys_are_single_whole_numbers() -> None:
    layer, mask = Dropout(0.8, 1), DropoutMask(X.shape, "float32", 0.8, 1)
    assert layer.infer([X, SEED, DRAWS]) == X == mask.infer([SEED, DRAWS])
    for odd in (X, TensorType((), "float32"), TensorType((2,), "int64"), TensorType((), "bool")):
        with pytest.raises(ValueError, match=r"draws is .* keyed by single whole numbers"):
            layer.infer([X, SEED, odd])
        with pytest.raises(ValueError, match=r"seed is .* keyed by single whole numbers"):
            mask.infer([odd, DRAWS])


@pytest.mark.parametrize("given", [True, np.True_, "half", 0, float("nan"), 1.5])
def test_keep_prob_is_a_number_up_to_1(given: object) -> None:
    x = gc.Net("dropped").input("x", (gc.N, 4))
    with pytest.raises(gc.GraphError, match=r"dropout: keep_prob=.* is out of range"):
        gc.dropout(x, keep_prob=given)
    with pytest.raises(ValueError, match=r"it must lie in \(0, 1\]"):
        Dropout(given, 1).infer([X, SEED, DRAWS])


@pytest.mark.parametrize("given", [True, False, np.False_, "half", 1, -1e-17, float("nan")])
def test_drop_prob_is_a_number_below_1(given: object) -> None:
    x = gc.Net("dropped").input("x", (gc.N, 4))
    with pytest.raises(gc.GraphError, match=r"dropout: drop_prob=.* is out of range"):
        gc.dropout(x, drop_prob=given)
