"""A multilayer perceptron in one line."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Value, as_value
from graphc.ir.numbers import listed, whole
from graphc.ops.affine import affine
from graphc.ops.dropout import dropout as dropout_layer
from graphc.ops.norm import batchnorm as batchnorm_layer
from graphc.ops.select import relu


def mlp(
    x: Value,
    hidden: Sequence[int],
    units: int,
    *,
    batchnorm: bool = False,
    dropout: float = 0.0,
    name: str | None = None,
) -> Value:
    """Return `x` (N, ...) after hidden layers of these widths and an affine layer: (N, units).

    A hidden layer is affine, batchnorm if asked for, relu, and dropout of the share `dropout`
    of the values, from 0 to below 1.  The last layer starts with weights of 0, so that no output
    is favoured before the first step; `name` is its name.  Raise GraphError if a width is not a
    whole number from 1 up, or if `dropout` is not such a share.
    """
    b = as_value("mlp", x).builder
    widths = _widths(hidden)
    _check_share(dropout)
    with b.all_or_nothing():
        for width in widths:
            x = affine(x, width)
            x = batchnorm_layer(x) if batchnorm else x
            x = relu(x)
            x = dropout_layer(x, drop_prob=dropout) if dropout else x
        return affine(x, units, init="zeros", name=name)


def _widths(hidden: Sequence[int]) -> tuple[int, ...]:
    widths = listed(hidden)
    if widths is None or any(whole(width, 1) is None for width in widths):
        raise GraphError(
            f"mlp: hidden is {hidden!r}, it must list whole numbers from 1 up",
            loc=caller_loc(),
            hint="gc.mlp(x, [100, 50], 10) has two hidden layers and 10 outputs",
        )
    return widths


def _check_share(dropout: float) -> None:
    share = isinstance(dropout, Real) and not isinstance(dropout, bool)
    if not share or not 0 <= dropout < 1:
        raise GraphError(
            f"mlp: dropout is {dropout!r}, it must be from 0 to below 1",
            loc=caller_loc(),
            hint="it is the share of values that is dropped: 0.2 drops one in five",
        )
