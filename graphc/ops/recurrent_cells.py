"""One step of recurrent networks, with the gates and weights of PyTorch.

A cell reads x (N, I), a state h (N, H) and weights stored (in, out), gates side by side:
`weight_ih` (I, G * H), `weight_hh` (H, G * H), `bias_ih` and `bias_hh` (G * H,).  They are
PyTorch's, transposed; ONNX has other orders of gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Value, as_value
from graphc.ir.tensor_type import shape_text
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.functions import sigmoid, tanh
from graphc.ops.linalg import affine
from graphc.ops.select import relu
from graphc.ops.slicing import slice_

__all__ = ["gru_cell", "lstm_cell", "rnn_cell"]

ACTIVATIONS: dict[str, Callable[[Value], Value]] = {"tanh": tanh, "relu": relu}


def rnn_cell(
    x: Value,
    h: Value,
    weight_ih: Value,
    weight_hh: Value,
    bias_ih: Value | None = None,
    bias_hh: Value | None = None,
    *,
    activation: Literal["tanh", "relu"] = "tanh",
    name: str | None = None,
) -> Value:
    """Return the next state, (N, H).

    It is activation(x @ weight_ih + bias_ih + h @ weight_hh + bias_hh).  Elman 1990.  Raise
    GraphError if the shapes do not fit.
    """
    with as_value("rnn_cell", x).builder.all_or_nothing():
        fed = product("rnn_cell", x, weight_ih, bias_ih)
        return rnn_step(fed, h, weight_hh, bias_hh, activation, name)


def lstm_cell(
    x: Value,
    h: Value,
    c: Value,
    weight_ih: Value,
    weight_hh: Value,
    bias_ih: Value | None = None,
    bias_hh: Value | None = None,
    *,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the next h and c, (N, H) each, by the gates input, forget, cell, output (G = 4).

    c' = f * c + i * g, h' = o * tanh(c') (Hochreiter and Schmidhuber 1997, with forget gates of
    Gers et al. 2000).  h' is named `name`, c' `name.c`.  Raise GraphError if the shapes do not fit.
    """
    with as_value("lstm_cell", x).builder.all_or_nothing():
        fed = product("lstm_cell", x, weight_ih, bias_ih)
        return lstm_step(fed, (h, c), weight_hh, bias_hh, name)


def gru_cell(
    x: Value,
    h: Value,
    weight_ih: Value,
    weight_hh: Value,
    bias_ih: Value | None = None,
    bias_hh: Value | None = None,
    *,
    reset_after: bool = True,
    name: str | None = None,
) -> Value:
    """Return the next state (N, H), by the gates reset, update, new (G = 3).

    h' = (1 - z) * n + z * h (Cho et al. 2014, arXiv:1406.1078).  The reset gate scales
    h @ weight_hh + bias_hh of n, as in PyTorch, or without `reset_after` h itself, as in the paper.
    Raise GraphError if the shapes do not fit.
    """
    with as_value("gru_cell", x).builder.all_or_nothing():
        fed = product("gru_cell", x, weight_ih, bias_ih)
        return gru_step(fed, h, weight_hh, bias_hh, reset_after, name)


# ---------------------------------------------------------------------- with x @ weight_ih known


def rnn_step(
    fed: Value,
    h: Value,
    weight: Value,
    bias: Value | None,
    activation: str = "tanh",
    name: str | None = None,
) -> Value:
    """Return the next state; `fed` is x @ weight_ih + bias_ih."""
    if activation not in ACTIVATIONS:
        raise GraphError(
            f"rnn: activation {activation!r} is not one of {', '.join(ACTIVATIONS)}",
            loc=caller_loc(),
            hint="gc.rnn_cell(..., activation='relu')",
        )
    total = add(fed, product("rnn_cell", h, weight, bias))
    return ACTIVATIONS[activation](total) if name is None else _named(activation, total, name)


def _named(activation: str, x: Value, name: str) -> Value:
    return relu(x, name=name) if activation == "relu" else tanh(x, name=name)


def lstm_step(
    fed: Value,
    states: tuple[Value, Value],
    weight: Value,
    bias: Value | None,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the next h and c; `fed` is x @ weight_ih + bias_ih."""
    h, c = states
    i, f, g, o = gates(add(fed, product("lstm_cell", h, weight, bias)), 4)
    cell = None if name is None else f"{name}.c"
    c = add(mul(sigmoid(f), c), mul(sigmoid(i), tanh(g)), name=cell)
    return mul(sigmoid(o), tanh(c), name=name), c


def gru_step(
    fed: Value,
    h: Value,
    weight: Value,
    bias: Value | None,
    reset_after: bool = True,
    name: str | None = None,
) -> Value:
    """Return the next state; `fed` is x @ weight_ih + bias_ih."""
    width = _width(h)
    if reset_after:
        back = product("gru_cell", h, weight, bias)
        (x_r, x_z, x_n), (h_r, h_z, h_n) = gates(fed, 3), gates(back, 3)
        r, z = sigmoid(add(x_r, h_r)), sigmoid(add(x_z, h_z))
        n = tanh(add(x_n, mul(r, h_n)))
    else:
        two = 2 * width
        parts = [slice_(weight, (slice(None), part)) for part in (slice(two), slice(two, None))]
        biases = [None, None] if bias is None else [bias[:two], bias[two:]]
        both = add(fed[:, :two], product("gru_cell", h, parts[0], biases[0]))
        r, z = map(sigmoid, gates(both, 2))
        n = tanh(add(fed[:, two:], product("gru_cell", mul(r, h), parts[1], biases[1])))
    return add(mul(sub(1.0, z), n), mul(z, h), name=name)


def gates(x: Value, count: int) -> Sequence[Value]:
    """Return the gates, which are side by side in x (N, count * H)."""
    width = _width(x) // count
    return [x[:, k * width : (k + 1) * width] for k in range(count)]


def product(cell: str, x: Value, weight: Value, bias: Value | None) -> Value:
    """Return x @ weight + bias; raise GraphError, with the cell's name, if they do not fit."""
    if x.type.rank != 2 or weight.type.rank != 2 or x.shape[1] != weight.shape[0]:
        raise GraphError(
            f"{cell}: {shape_text(x.shape)} does not fit a weight of {shape_text(weight.shape)}",
            operands=[x.node.described("x"), weight.node.described("weight")],
            loc=caller_loc(),
            hint="x is (N, I), h is (N, H); weights are (I, gates * H) and (H, gates * H)",
        )
    return affine(x, weight=weight, bias=False if bias is None else bias)


def _width(x: Value) -> int:
    width = x.shape[-1]
    assert isinstance(width, int), "a product has columns"
    return width
