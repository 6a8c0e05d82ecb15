"""One step of recurrent networks, with the gates and weights of PyTorch.

A cell reads x (N, I), a state h (N, H) and weights stored (in, out), gates side by side:
`weight_ih` (I, G * H), `weight_hh` (H, G * H), `bias_ih` and `bias_hh` (G * H,).  They are
PyTorch's, transposed; ONNX has other orders of gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from graphc.base.arguments import check_choice
from graphc.base.errors import GraphError
from graphc.ir.build import Value, as_value
from graphc.ir.tensor_type import shape_text
from graphc.ops.apply import F, OfOne, with_attributes
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.functions import sigmoid, tanh
from graphc.ops.linalg import affine
from graphc.ops.select import relu
from graphc.ops.slicing import slice_

__all__ = ["gru_cell", "lstm_cell", "rnn_cell"]

ACTIVATIONS: dict[str, OfOne] = {"tanh": tanh, "relu": relu}

States = tuple[Value, ...]
"""The state between steps, (N, H) each: h, and c of an LSTM."""
Step = Callable[[Value, States, Value, Value | None], States]
"""One step: from x @ weight_ih + bias_ih, the states, weight_hh and bias_hh to the next states."""


def _of_cell(
    gates: int,
    example: tuple[str, str, str] = ("(N, 4)", "x, h, wi, wh", "(N, 5)"),
    **texts: str,
) -> Callable[[F], F]:
    """Return the decorator for cells whose weights have `gates` times as many columns as h."""
    columns, width = 5 * gates, "H" if gates == 1 else f"{gates} * H"
    common = {
        "x": "The input of the step, (N, I).",
        "h": "The state before the step, (N, H).",
        "weight_hh": f"The weights of the input, (I, {width}), and of the state, (H, {width}).",
        "bias_hh": f"Their biases, ({width},), if there are any.",
        "returns": "Of shape (N, H).",
        "raises": "If the shapes do not fit.",
        "also": f"""h = net.input("h", (gc.N, 5))
wi, wh = net.parameter("wi", (4, {columns})), net.parameter("wh", (5, {columns}))""",
    }
    return with_attributes(example=example, **(common | texts))


@_of_cell(1, activation='"tanh" or "relu".')
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
    """Return the state after one step of a simple recurrent network.

    activation(x @ weight_ih + bias_ih + h @ weight_hh + bias_hh): Elman 1990
    (doi:10.1207/s15516709cog1402_1).
    """
    step = partial(rnn_step, activation=activation, name=name)
    return _cell("rnn_cell", step, x, (h,), (weight_ih, bias_ih), (weight_hh, bias_hh))[0]


@_of_cell(
    4,
    ("(N, 4)", "x, h, h, wi, wh", "[(N, 5), (N, 5)]"),
    show="[value.shape for value in {}]",
    h="",
    c="The states before the step, (N, H) each.",
    found="Value, Value",
    returns="The next h, named `name`, and the next c, named `<name>.c`, of shape (N, H).",
)
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
    """Return the states after one step of an LSTM.

    c' = f * c + i * g, h' = o * tanh(c'), by the gates input, forget, cell, output, side by side in
    the weights: Hochreiter and Schmidhuber 1997 (doi:10.1162/neco.1997.9.8.1735), with forget gates
    of Gers et al. 2000 (doi:10.1162/089976600300015015).
    """
    step = partial(lstm_step, name=name)
    h, c = _cell("lstm_cell", step, x, (h, c), (weight_ih, bias_ih), (weight_hh, bias_hh))
    return h, c


@_of_cell(
    3,
    reset_after="True if the reset gate scales h @ weight_hh + bias_hh, as in PyTorch;\n"
    "False if it scales h itself, as in the paper.",
)
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
    """Return the state after one step of a gated recurrent unit.

    h' = (1 - z) * n + z * h, by the gates reset, update, new, side by side in the weights: Cho et
    al. 2014 (arXiv:1406.1078).
    """
    step = partial(gru_step, reset_after=reset_after, name=name)
    return _cell("gru_cell", step, x, (h,), (weight_ih, bias_ih), (weight_hh, bias_hh))[0]


def _cell(
    kind: str,
    step: Step,
    x: Value,
    states: States,
    own: tuple[Value, Value | None],
    back: tuple[Value, Value | None],
) -> States:
    """Add one step by the weights and biases of the input (`own`) and of the state (`back`)."""
    with as_value(kind, x).builder.all_or_nothing():
        return step(product(kind, x, *own), states, *back)


def rnn_step(
    fed: Value,
    states: States,
    weight: Value,
    bias: Value | None,
    *,
    activation: str,
    name: str | None = None,
) -> States:
    """Return the state from x @ weight_ih + bias_ih, which is `fed`, and the state before."""
    hint = "gc.rnn_cell(..., activation='relu')"
    check_choice("rnn: activation", activation, ACTIVATIONS, hint=hint)
    total = add(fed, product("rnn_cell", states[0], weight, bias))
    return (ACTIVATIONS[activation](total, name=name),)


def lstm_step(
    fed: Value, states: States, weight: Value, bias: Value | None, *, name: str | None = None
) -> States:
    """Return h and c from the gates input, forget, cell and output of `fed` and h."""
    h, c = states
    i, f, g, o = _gates(add(fed, product("lstm_cell", h, weight, bias)), 4)
    cell = None if name is None else f"{name}.c"
    c = add(mul(sigmoid(f), c), mul(sigmoid(i), tanh(g)), name=cell)
    return mul(sigmoid(o), tanh(c), name=name), c


def gru_step(
    fed: Value,
    states: States,
    weight: Value,
    bias: Value | None,
    *,
    reset_after: bool,
    name: str | None = None,
) -> States:
    """Return the state from `fed` and h; with `reset_after` h needs one product, else two."""
    (h,) = states
    if reset_after:
        back = product("gru_cell", h, weight, bias)
        (x_r, x_z, x_n), (h_r, h_z, h_n) = _gates(fed, 3), _gates(back, 3)
        r, z = sigmoid(add(x_r, h_r)), sigmoid(add(x_z, h_z))
        n = tanh(add(x_n, mul(r, h_n)))
    else:
        two = 2 * _width(h)
        parts = [slice_(weight, (slice(None), part)) for part in (slice(two), slice(two, None))]
        biases = [None, None] if bias is None else [bias[:two], bias[two:]]
        both = add(fed[:, :two], product("gru_cell", h, parts[0], biases[0]))
        r, z = map(sigmoid, _gates(both, 2))
        n = tanh(add(fed[:, two:], product("gru_cell", mul(r, h), parts[1], biases[1])))
    return (add(mul(sub(1.0, z), n), mul(z, h), name=name),)


def _gates(x: Value, count: int) -> Sequence[Value]:
    """Return the gates, which are side by side in x (N, count * H)."""
    width = _width(x) // count
    return [x[:, k * width : (k + 1) * width] for k in range(count)]


def product(cell: str, x: Value, weight: Value, bias: Value | None) -> Value:
    """Return x @ weight + bias; raise GraphError, with the cell's name, if they do not fit."""
    if x.type.rank != 2 or weight.type.rank != 2 or x.shape[1] != weight.shape[0]:
        raise GraphError(
            f"{cell}: {shape_text(x.shape)} does not fit a weight of {shape_text(weight.shape)}",
            operands=[x.node.described("x"), weight.node.described("weight")],
            hint="x is (N, I), h is (N, H); weights are (I, gates * H) and (H, gates * H)",
        )
    return affine(x, weight=weight, bias=False if bias is None else bias)


def _width(x: Value) -> int:
    width = x.shape[-1]
    assert isinstance(width, int), "a product has columns"
    return width
