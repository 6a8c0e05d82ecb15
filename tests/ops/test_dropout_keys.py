"""Masks are keyed by a seed and a counter, and by nothing else."""

from __future__ import annotations

import pytest

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
