"""Recurrent layers over sequences, unrolled, and single steps of them.

The gates and weights are PyTorch's.  A cell reads x (N, I), a state h (N, H) and weights stored
(in, out), gates side by side: `weight_ih` (I, G * H), `weight_hh` (H, G * H), `bias_ih` and
`bias_hh` (G * H,).  They are PyTorch's, transposed; ONNX has other orders of gates.  The nodes of
all steps of a layer share the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any, Literal, SupportsIndex

from graphc.base.arguments import check_choice, checked_whole, takes
from graphc.base.errors import GraphError
from graphc.ir.build import Value, as_value
from graphc.ir.init import Uniform
from graphc.ir.tensor_type import shape_text
from graphc.ops.apply import OfOne
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.functions import sigmoid, tanh
from graphc.ops.linalg import affine
from graphc.ops.reduce import broadcast_to
from graphc.ops.select import relu
from graphc.ops.shape import reshape
from graphc.ops.slicing import concat, slice_
from graphc.ops.source import constant, parameter

__all__ = ["gru", "gru_cell", "lstm", "lstm_cell", "rnn", "rnn_cell"]

ACTIVATIONS: dict[str, OfOne] = {"tanh": tanh, "relu": relu}

States = tuple[Value, ...]
"""The state between steps, (N, H) each: h, and c of an LSTM."""
Step = Callable[[Value, States, Value, Value | None], States]
"""One step: from x @ weight_ih + bias_ih, the states, weight_hh and bias_hh to the next states."""


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
    step = partial(_rnn_step, activation=activation, name=name)
    return _cell("rnn_cell", step, x, (h,), (weight_ih, bias_ih), (weight_hh, bias_hh))[0]


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
    step = partial(_lstm_step, name=name)
    h, c = _cell("lstm_cell", step, x, (h, c), (weight_ih, bias_ih), (weight_hh, bias_hh))
    return h, c


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
    step = partial(_gru_step, reset_after=reset_after, name=name)
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
        return step(_product(kind, x, *own), states, *back)


def _rnn_step(
    fed: Value,
    states: States,
    weight: Value,
    bias: Value | None,
    *,
    activation: str,
    name: str | None = None,
) -> States:
    hint = "gc.rnn_cell(..., activation='relu')"
    check_choice("rnn: activation", activation, ACTIVATIONS, hint=hint)
    total = add(fed, _product("rnn_cell", states[0], weight, bias))
    return (ACTIVATIONS[activation](total, name=name),)


def _lstm_step(
    fed: Value, states: States, weight: Value, bias: Value | None, *, name: str | None = None
) -> States:
    h, c = states
    i, f, g, o = _gates(add(fed, _product("lstm_cell", h, weight, bias)), 4)
    cell = None if name is None else f"{name}.c"
    c = add(mul(sigmoid(f), c), mul(sigmoid(i), tanh(g)), name=cell)
    return mul(sigmoid(o), tanh(c), name=name), c


def _gru_step(
    fed: Value,
    states: States,
    weight: Value,
    bias: Value | None,
    *,
    reset_after: bool,
    name: str | None = None,
) -> States:
    (h,) = states
    if reset_after:
        back = _product("gru_cell", h, weight, bias)
        (x_r, x_z, x_n), (h_r, h_z, h_n) = _gates(fed, 3), _gates(back, 3)
        r, z = sigmoid(add(x_r, h_r)), sigmoid(add(x_z, h_z))
        n = tanh(add(x_n, mul(r, h_n)))
    else:
        two = 2 * _width(h)
        parts = [slice_(weight, (slice(None), part)) for part in (slice(two), slice(two, None))]
        biases = [None, None] if bias is None else [bias[:two], bias[two:]]
        both = add(fed[:, :two], _product("gru_cell", h, parts[0], biases[0]))
        r, z = map(sigmoid, _gates(both, 2))
        n = tanh(add(fed[:, two:], _product("gru_cell", mul(r, h), parts[1], biases[1])))
    return (add(mul(sub(1.0, z), n), mul(z, h), name=name),)


def _gates(x: Value, count: int) -> Sequence[Value]:
    """Return the gates, which are side by side in x (N, count * H)."""
    width = _width(x) // count
    return [x[:, k * width : (k + 1) * width] for k in range(count)]


def _product(cell: str, x: Value, weight: Value, bias: Value | None) -> Value:
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


# ---------------------------------------------------------------------------- layers of all steps

_RECURRENT = takes(
    "states, last = gc.gru(x, width)",
    units="it is width",
    hidden_size="it is width",
    input_size="it is read off x: gc.lstm(x, width)",
    return_sequences="both are returned: all states, and the last: states, last = gc.gru(x, width)",
    return_state="both are returned: all states, and the last: states, last = gc.gru(x, width)",
    go_backwards="it is reverse",
    num_layers="give the states of one layer to the next: gc.gru(states, width)",
    batch_first="it is always so: x is (N, T, features)",
)


@_RECURRENT
def rnn(
    x: Value,
    width: SupportsIndex,
    *,
    initial: Value | None = None,
    activation: Literal["tanh", "relu"] = "tanh",
    bias: bool = True,
    reverse: bool = False,
    bidirectional: bool = False,
    init: Any = None,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the states of all steps (N, T, width) of x (N, T, I), and the last one (N, width).

    `rnn_cell` computes each, from `initial` (N, width), or 0.  The parameters `<node>.weight_ih`,
    `.weight_hh`, `.bias_ih` and `.bias_hh` are shared by all steps, and start uniform within
    1 / sqrt(width), as PyTorch's do, unless `init` is given.  With `reverse` the last step comes
    first.  `bidirectional` adds the layer `<node>.reverse` in the other direction, and joins both:
    (N, T, 2 * width) and (N, 2 * width).  Raise GraphError if the shapes do not fit.
    """
    step = partial(_rnn_step, activation=activation)
    layer = _Layer("rnn", step, 1, x, width, bias, init)
    states, (last,) = layer.declared((initial,), reverse, bidirectional, name)
    return states, last


@_RECURRENT
def gru(
    x: Value,
    width: SupportsIndex,
    *,
    initial: Value | None = None,
    reset_after: bool = True,
    bias: bool = True,
    reverse: bool = False,
    bidirectional: bool = False,
    init: Any = None,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the states of all steps (N, T, width) of x (N, T, I), and the last one (N, width).

    `gru_cell` computes each; all else is as in `rnn`.
    """
    step = partial(_gru_step, reset_after=reset_after)
    layer = _Layer("gru", step, 3, x, width, bias, init)
    states, (last,) = layer.declared((initial,), reverse, bidirectional, name)
    return states, last


@_RECURRENT
def lstm(
    x: Value,
    width: SupportsIndex,
    *,
    initial: tuple[Value, Value] | None = None,
    bias: bool = True,
    reverse: bool = False,
    bidirectional: bool = False,
    init: Any = None,
    name: str | None = None,
) -> tuple[Value, tuple[Value, Value]]:
    """Return the states h of all steps (N, T, width) of x (N, T, I), and the last h and c.

    Both last ones are (N, width).  `lstm_cell` computes each, from `initial` h and c, or 0; all
    else is as in `rnn`.
    """
    layer = _Layer("lstm", _lstm_step, 4, x, width, bias, init)
    start = (None, None) if initial is None else initial
    states, (h, c) = layer.declared(start, reverse, bidirectional, name)
    return states, (h, c)


@dataclass
class _Layer:
    """A layer to be declared: its step, and all of its arguments that both directions share."""

    kind: str
    step: Step
    gates: int
    x: Value
    width: Any
    bias: bool
    init: Any

    def declared(
        self, initial: Sequence[Value | None], reverse: bool, bidirectional: bool, name: str | None
    ) -> tuple[Value, States]:
        """Declare the nodes in one direction or both; return the results, and the last states."""
        b = as_value(self.kind, self.x).builder
        if bidirectional and (reverse or any(state is not None for state in initial)):
            raise GraphError(
                f"{self.kind}: bidirectional takes neither initial nor reverse",
                hint="declare a layer each way, and join them: gc.concat([ahead, back], axis=2)",
            )
        node = b.free_name(self.kind, name)
        with b.all_or_nothing():
            ahead, last = self._unrolled(node, initial, reverse)
            if not bidirectional:
                return ahead, last
            back, first = self._unrolled(f"{node}.reverse", initial, True)
        states = (concat([a, z], axis=1) for a, z in zip(last, first, strict=True))
        return concat([ahead, back], axis=2), tuple(states)

    def _unrolled(
        self, node: str, initial: Sequence[Value | None], back: bool
    ) -> tuple[Value, States]:
        """Add the weights and the nodes of all steps."""
        x, steps, features = self.x, *self._sizes()
        hint = f"it is the size of the state: gc.{self.kind}(x, 32)"
        width = checked_whole(f"{self.kind}: width", self.width, hint=hint)
        rows, size = x.shape[0], self.gates * width
        weights, biases = self._parameters(node, (features, width), size)
        states = tuple(self._state(given, width) for given in initial)
        flat = reshape(x, (rows * steps, features))
        fed = _product(self.kind, flat, weights[0], biases[0])  # the inputs of all steps at once
        beside = reshape(fed, (rows, steps * size), name=f"{node}.fed")
        found: list[Value] = []
        order = range(steps)
        for t in reversed(order) if back else order:
            states = self.step(beside[:, t * size : (t + 1) * size], states, weights[1], biases[1])
            found.append(states[0])
        joined = concat(found[::-1] if back else found, axis=1)
        return reshape(joined, (rows, steps, width), name=node), states

    def _sizes(self) -> tuple[int, int]:
        """Return the number of steps, and of features in each; raise GraphError if x has none."""
        x = self.x
        _, steps, features = x.shape if x.type.rank == 3 else (None, None, None)
        if isinstance(steps, int) and isinstance(features, int) and steps:
            return steps, features
        raise GraphError(
            f"{self.kind}: x is {x.type}",
            operands=[x.node.described("x")],
            hint="it must be (N, T, I): T steps of I numbers each",
        )

    def _parameters(
        self, node: str, rows: tuple[int, int], size: int
    ) -> tuple[list[Value], list[Value | None]]:
        """Add the weights and biases, or None without: those of the input, then the state's."""
        bound = 1 / sqrt(rows[1])
        start = Uniform(-bound, bound) if self.init is None else self.init

        def added(role: str, *shape: int) -> Value:
            return parameter(self.x.builder, f"{node}.{role}", shape, self.x.dtype, start)

        sides = ("ih", "hh")
        weights = [added(f"weight_{side}", n, size) for side, n in zip(sides, rows, strict=True)]
        return weights, [added(f"bias_{side}", size) if self.bias else None for side in sides]

    def _state(self, given: Value | None, width: int) -> Value:
        """Return the state before the first step: the given one, or zeros."""
        x, wanted = self.x, (self.x.shape[0], width)
        if given is None:
            return broadcast_to(constant(x.builder, 0.0, x.dtype), wanted)
        given = as_value(self.kind, given)
        if given.shape == wanted:
            return given
        raise GraphError(
            f"{self.kind}: a state of shape {shape_text(given.shape)} was given to begin with",
            operands=[given.node.described("initial")],
            hint=f"it must be {shape_text(wanted)}",
        )
