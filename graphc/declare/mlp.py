"""A perceptron in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.base.arguments import checked_number, listed, whole
from graphc.base.errors import GraphError
from graphc.ir.build import Value, as_value
from graphc.ops.dropout import dropout as dropout_layer
from graphc.ops.linalg import affine
from graphc.ops.norm import batchnorm as batchnorm_layer
from graphc.ops.select import relu


def mlp(
    x: Value,
    hidden: Sequence[int],
    units: int,
    *,
    batchnorm: bool = False,
    dropout: float = 0.0,
    init: Any = "he",
    name: str | None = None,
) -> Value:
    """Return x after hidden layers and an affine layer: a perceptron.

    A hidden layer is affine, batchnorm if asked for, relu, and dropout.  The last layer starts with
    weights of 0, so that no output is favoured before the first step.

    Parameters
    ----------
    x
        Floats of shape (N, ...).
    hidden
        The widths of the hidden layers.
    units
        The number of features of the result.
    batchnorm
        Whether hidden layers normalise their features.
    dropout
        The share of values that each hidden layer drops in training, from 0 to below 1.
    init
        The start of the weights of hidden layers: an initializer, its name or a number.
    name
        The name of the last layer.

    Returns
    -------
    Value
        Of shape (N, units).

    Raises
    ------
    GraphError
        If a width is not a whole number from 1 up, or `dropout` is out of range.

    Examples
    --------
    >>> gc.mlp(gc.Net().input("x", (gc.N, 64)), [100, 50], 10).shape
    (N, 10)
    """
    b = as_value("mlp", x).builder
    widths = _widths(hidden)
    hint = "it is the share of values that is dropped: 0.2 drops one in five"
    checked_number("mlp: dropout", dropout, least=0, below=1, hint=hint)
    with b.all_or_nothing():
        for width in widths:
            x = affine(x, width, init=init)
            x = batchnorm_layer(x) if batchnorm else x
            x = relu(x)
            x = dropout_layer(x, drop_prob=dropout) if dropout else x
        return affine(x, units, init="zeros", name=name)


def _widths(hidden: Sequence[int]) -> tuple[int, ...]:
    """Return the hidden widths; raise GraphError unless they are whole numbers from 1 up."""
    widths = listed(hidden)
    if widths is None or any(whole(width, 1) is None for width in widths):
        raise GraphError(
            f"mlp: hidden is {hidden!r}, it must list whole numbers from 1 up",
            hint="gc.mlp(x, [100, 50], 10) has two hidden layers and 10 outputs",
        )
    return widths
