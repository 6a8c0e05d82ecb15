"""Recurrent layers over sequences: loops whose steps share the weights."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, SupportsIndex

from graphc.base.arguments import takes
from graphc.ir.build import Value
from graphc.ops.apply import with_attributes
from graphc.ops.loops.recurrent_cells import gru_step, lstm_step, rnn_step
from graphc.ops.loops.recurrent_layer import RecurrentLayer

__all__ = ["gru", "lstm", "rnn"]

_RECURRENT = takes(
    "states, last = gc.gru(x, width)",
    units="it is width",
    hidden_size="it is width",
    input_size="it is read off x: gc.lstm(x, width)",
    return_sequences="both are returned: all states, and the last: states, last = gc.gru(x, width)",
    return_state="both are returned: all states, and the last: states, last = gc.gru(x, width)",
    go_backwards="it is reverse",
    num_layers="it is layers",
    proj_size="it is projection",
    dropout="it is drop_prob",
    sequence_lens="it is lengths",
    batch_first="it is always so: x is (N, T, features)",
)


_sequence = partial(
    with_attributes,
    example=("(N, 7, 4)", "x, 5", "[(N, 7, 5), (N, 5)]"),
    show="[value.shape for value in {}]",
    x="The sequence, floats of shape (N, T, I): T steps of I numbers.",
    width="The size of the state.",
    initial="The state (N, width) before the first step; by default 0.  (N, layers, width) with\n"
    "several layers.",
    lengths="The steps of each row, whole numbers (N,).  Behind a row's end states are 0, and the\n"
    "last state is that of its end, also with `reverse` and `bidirectional`.",
    layers="The number of layers; each but the first takes the states of the one before.",
    keep_prob="",
    drop_prob="The share of states to keep or to drop between layers in training.",
    bias="True if there are biases.",
    reverse="True if the last step comes first.",
    bidirectional="True to add the layer `<node>.reverse` in the other direction and join both.",
    init="The start of the parameters; by default uniform within 1 / sqrt(width), as in PyTorch.",
    name="The name of the node.  Its parameters `<node>.weight_ih`, `.weight_hh`, `.bias_ih` and\n"
    "`.bias_hh` are those of `gc.rnn_cell`, `gc.gru_cell` or `gc.lstm_cell`, which compute each\n"
    "step; with several layers they are `<node>.layer1.weight_ih` and so on.",
    found="Value, Value",
    returns="The states of the last layer at all steps, (N, T, width), and the last one,\n"
    "(N, width); twice as wide with `bidirectional`.  Of several layers the last ones are\n"
    "(N, layers, width).",
    raises="If the shapes do not fit, or `bidirectional` comes with `initial` or `reverse`.",
)


@_RECURRENT
@_sequence(activation='"tanh" or "relu".')
def rnn(
    x: Value,
    width: SupportsIndex,
    *,
    initial: Value | None = None,
    activation: Literal["tanh", "relu"] = "tanh",
    bias: bool = True,
    reverse: bool = False,
    bidirectional: bool = False,
    lengths: Value | None = None,
    layers: SupportsIndex = 1,
    keep_prob: float | None = None,
    drop_prob: float | None = None,
    init: Any = None,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the states after each step of a simple recurrent network, and after the last."""
    step = partial(rnn_step, activation=activation)
    many = lengths, layers, keep_prob, drop_prob
    layer = RecurrentLayer("rnn", step, 1, x, width, bias, init, *many)
    states, (last,) = layer.declared((initial,), reverse, bidirectional, name)
    return states, last


@_RECURRENT
@_sequence(
    example=("(N, 7, 4)", "x, 5, bidirectional=True", "[(N, 7, 10), (N, 10)]"),
    reset_after="True if the reset gate scales a product, as in PyTorch; see `gc.gru_cell`.",
)
def gru(
    x: Value,
    width: SupportsIndex,
    *,
    initial: Value | None = None,
    reset_after: bool = True,
    bias: bool = True,
    reverse: bool = False,
    bidirectional: bool = False,
    lengths: Value | None = None,
    layers: SupportsIndex = 1,
    keep_prob: float | None = None,
    drop_prob: float | None = None,
    init: Any = None,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the states after each step of gated recurrent units, and after the last."""
    step = partial(gru_step, reset_after=reset_after)
    many = lengths, layers, keep_prob, drop_prob
    layer = RecurrentLayer("gru", step, 3, x, width, bias, init, *many)
    states, (last,) = layer.declared((initial,), reverse, bidirectional, name)
    return states, last


@_RECURRENT
@_sequence(
    example=("(N, 7, 4)", "x, 5", "(N, 7, 5)"),
    show="{}[0].shape",
    initial="The states h and c (N, width) before the first step; by default 0.\n"
    "(N, layers, width) with several layers.",
    projection="The size of h if it is a projection of o * tanh(c), by `<node>.weight_hr`.",
    found="Value, (Value, Value)",
    returns="The states h of the last layer at all steps, (N, T, width), and the last h and c,\n"
    "(N, width) each; twice as wide with `bidirectional`.  The last ones of several layers are\n"
    "(N, layers, width).",
)
def lstm(
    x: Value,
    width: SupportsIndex,
    *,
    initial: tuple[Value, Value] | None = None,
    bias: bool = True,
    reverse: bool = False,
    bidirectional: bool = False,
    lengths: Value | None = None,
    layers: SupportsIndex = 1,
    keep_prob: float | None = None,
    drop_prob: float | None = None,
    projection: SupportsIndex | None = None,
    init: Any = None,
    name: str | None = None,
) -> tuple[Value, tuple[Value, Value]]:
    """Return the states of an LSTM after each step, and after the last."""
    many = lengths, layers, keep_prob, drop_prob
    layer = RecurrentLayer("lstm", lstm_step, 4, x, width, bias, init, *many, projection)
    start = (None, None) if initial is None else initial
    states, (h, c) = layer.declared(start, reverse, bidirectional, name)
    return states, (h, c)
