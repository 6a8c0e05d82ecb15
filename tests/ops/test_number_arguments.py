"""Arguments that are numbers: what is none is refused at the user's line, in the op's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.together import together

net = gc.Net("numbers")
X, Y = net.input("x", (gc.N, 4)), net.input("y", (gc.N, 4))
LABELS, SIGNS = net.input("labels", (gc.N,), dtype="int64"), net.input("signs", (gc.N,))

CALLS: dict[str, Callable[[Any], object]] = {
    "layernorm: eps": lambda v: gc.layernorm(X, eps=v),
    "rmsnorm: eps": lambda v: gc.rmsnorm(X, eps=v),
    "batchnorm: eps": lambda v: gc.batchnorm(X, eps=v),
    "batchnorm: running_decay": lambda v: gc.batchnorm(X, running_decay=v),
    "softmax_loss: label_smoothing": lambda v: gc.softmax_loss(X, LABELS, label_smoothing=v),
    "cosine_loss: margin": lambda v: gc.cosine_loss(X, Y, SIGNS, margin=v),
    "huber_loss: delta": lambda v: gc.huber_loss(X, Y, v),
    "sigmoid_loss: pos_weight": lambda v: gc.sigmoid_loss(X, Y, pos_weight=v),
    "elu: alpha": lambda v: gc.elu(X, v),
    "leaky_relu: slope": lambda v: gc.leaky_relu(X, v),
    "thresholded_relu: alpha": lambda v: gc.thresholded_relu(X, v),
    "celu: alpha": lambda v: gc.celu(X, v),
    "shrink: threshold": lambda v: gc.shrink(X, v),
    "shrink: bias": lambda v: gc.shrink(X, bias=v),
    "clip: low": lambda v: gc.clip(X, v, 1),
    "clip: high": lambda v: gc.clip(X, 0, v),
    "pad: value": lambda v: gc.pad(X, ((0, 0), (1, 1)), value=v),
    "attention: scale": lambda v: gc.attention(*(gc.reshape(X, (gc.N, 2, 2)),) * 3, scale=v),
}


@pytest.mark.parametrize("given", ["half", {"one": 1}, object()])
@together("what", CALLS)
def test_what_is_no_number_is_refused(what: str, given: object) -> None:
    with pytest.raises(gc.GraphError) as caught:
        CALLS[what](given)
    assert str(caught.value).startswith(f"{what} is {given!r}, it must be ")
    assert "test_number_arguments.py" in str(caught.value)


@pytest.mark.parametrize("number", [1, 1.0, np.float32(1), np.int64(1), np.array(1), np.array(1.0)])
@together("what", CALLS)
def test_numbers_of_any_kind_are_taken(what: str, number: Any) -> None:
    CALLS[what](number)
