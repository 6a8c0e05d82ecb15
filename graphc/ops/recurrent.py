"""Recurrent layers over sequences, unrolled: the nodes of all steps share the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any, Literal, SupportsIndex

from graphc.base.arguments import checked_whole, takes
from graphc.base.errors import GraphError
from graphc.ir.build import Value, as_value
from graphc.ir.init import Uniform
from graphc.ir.tensor_type import shape_text
from graphc.ops.apply import OF_LAYER, with_attributes
from graphc.ops.recurrent_cells import States, Step, gru_step, lstm_step, product, rnn_step
from graphc.ops.reduce import broadcast_to
from graphc.ops.shape import reshape
from graphc.ops.slicing import concat
from graphc.ops.source import constant, parameter

__all__ = ["gru", "lstm", "rnn"]

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


_sequence = partial(
    with_attributes,
    example=("(N, 7, 4)", "x, 5", "[(N, 7, 5), (N, 5)]"),
    show="[value.shape for value in {}]",
    x="The sequence, floats of shape (N, T, I): T steps of I numbers.",
    width="The size of the state.",
    initial="The state (N, width) before the first step; by default 0.",
    bias="True if there are biases.",
    reverse="True if the last step comes first.",
    bidirectional="True to add the layer `<node>.reverse` in the other direction and join both.",
    init="The start of the parameters; by default uniform within 1 / sqrt(width), as in PyTorch.",
    name=OF_LAYER,
    found="Value, Value",
    returns="All states, (N, T, width), and the last one, (N, width); twice as wide with "
    "`bidirectional`.",
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
    init: Any = None,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the states of a simple recurrent network after each step, and after the last.

    `gc.rnn_cell` computes each step.  The parameters `<node>.weight_ih`, `.weight_hh`, `.bias_ih`
    and `.bias_hh` are shared by all steps.
    """
    step = partial(rnn_step, activation=activation)
    layer = _Layer("rnn", step, 1, x, width, bias, init)
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
    init: Any = None,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the states of gated recurrent units after each step, and after the last.

    `gc.gru_cell` computes each step.  The parameters `<node>.weight_ih`, `.weight_hh`, `.bias_ih`
    and `.bias_hh` are shared by all steps.
    """
    step = partial(gru_step, reset_after=reset_after)
    layer = _Layer("gru", step, 3, x, width, bias, init)
    states, (last,) = layer.declared((initial,), reverse, bidirectional, name)
    return states, last


@_RECURRENT
@_sequence(
    example=("(N, 7, 4)", "x, 5", "(N, 7, 5)"),
    show="{}[0].shape",
    initial="The states h and c (N, width) before the first step; by default 0.",
    found="Value, (Value, Value)",
    returns="The states h of all steps, (N, T, width), and the last h and c, (N, width) each;\n"
    "twice as wide with `bidirectional`.",
)
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
    """Return the states of an LSTM after each step, and after the last.

    `gc.lstm_cell` computes each step.  The parameters `<node>.weight_ih`, `.weight_hh`, `.bias_ih`
    and `.bias_hh` are shared by all steps.
    """
    layer = _Layer("lstm", lstm_step, 4, x, width, bias, init)
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
        if len(last) == 1:  # the order decides the names of the nodes, which files keep
            return concat([ahead, back], axis=2), (concat([*last, *first], axis=1),)
        states = tuple(concat([a, z], axis=1) for a, z in zip(last, first, strict=True))
        return concat([ahead, back], axis=2), states

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
        fed = product(self.kind, flat, weights[0], biases[0])  # the inputs of all steps at once
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
            f"{self.kind}: the initial state has shape {shape_text(given.shape)}",
            operands=[given.node.described("initial")],
            hint=f"it must be {shape_text(wanted)}",
        )
