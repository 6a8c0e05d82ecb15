"""Recurrent layers over sequences, unrolled: the nodes of all steps share the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, Literal, SupportsIndex, TypeVar

from graphc.base.arguments import checked_whole, takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.init import Uniform, resolve
from graphc.ir.tensor_type import Dim, shape_text
from graphc.ops.recurrent_cells import gru_step, lstm_step, product, rnn_step
from graphc.ops.reduce import broadcast_to
from graphc.ops.shape import reshape
from graphc.ops.slicing import concat
from graphc.ops.source import Parameter, constant

__all__ = ["gru", "lstm", "rnn"]

S = TypeVar("S")
Weights = tuple[Value, Value, Value | None, Value | None]
"""The weights of a layer: weight_ih, weight_hh, bias_ih, bias_hh."""


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

    def layer(node: str, start: Value | None, back: bool) -> tuple[Value, Value]:
        sequence = _Sequence("rnn", node, x, width, 1, bias, init)
        _, hh, _, bias_hh = sequence.weights

        def step(fed: Value, h: Value) -> tuple[Value, Value]:
            h = rnn_step(fed, h, hh, bias_hh, activation)
            return h, h

        return sequence.unrolled(step, sequence.state(start), back)

    return _directions("rnn", x, name, layer, initial, reverse, bidirectional)


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

    def layer(node: str, start: Value | None, back: bool) -> tuple[Value, Value]:
        sequence = _Sequence("gru", node, x, width, 3, bias, init)
        _, hh, _, bias_hh = sequence.weights

        def step(fed: Value, h: Value) -> tuple[Value, Value]:
            h = gru_step(fed, h, hh, bias_hh, reset_after)
            return h, h

        return sequence.unrolled(step, sequence.state(start), back)

    return _directions("gru", x, name, layer, initial, reverse, bidirectional)


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

    def layer(
        node: str, start: tuple[Value, Value] | None, back: bool
    ) -> tuple[Value, tuple[Value, Value]]:
        sequence = _Sequence("lstm", node, x, width, 4, bias, init)
        _, hh, _, bias_hh = sequence.weights

        def step(fed: Value, states: tuple[Value, Value]) -> tuple[Value, tuple[Value, Value]]:
            h, c = lstm_step(fed, states, hh, bias_hh)
            return h, (h, c)

        h, c = (None, None) if start is None else start
        return sequence.unrolled(step, (sequence.state(h), sequence.state(c)), back)

    if not bidirectional:
        return _named_layer("lstm", x, name, lambda node: layer(node, initial, reverse))
    both = _both_ways("lstm", x, name, layer, initial is not None or reverse)
    (ahead, (h, c)), (back, (other_h, other_c)) = both
    states = concat([h, other_h], axis=1), concat([c, other_c], axis=1)
    return concat([ahead, back], axis=2), states


class _Sequence:
    """A layer that is being built: its weights, and the loop over its steps."""

    def __init__(
        self, kind: str, node: str, x: Value, width: object, gates: int, bias: bool, init: Any
    ) -> None:
        self.kind, self.node, self.x, self.b = kind, node, x, x.builder
        self.steps, features = _sizes(kind, x)
        self.width = _checked_width(kind, width)
        size = gates * self.width
        start = Uniform(-1 / sqrt(self.width), 1 / sqrt(self.width)) if init is None else init

        def parameter(role: str, *shape: int) -> Value:
            return _parameter(self.b, f"{node}.{role}", shape, x.dtype, start)

        ih, hh = parameter("weight_ih", features, size), parameter("weight_hh", self.width, size)
        biases = [parameter(f"bias_{side}", size) if bias else None for side in ("ih", "hh")]
        self.weights: Weights = (ih, hh, biases[0], biases[1])

    def state(self, given: Value | None) -> Value:
        """Return the state before the first step: the given one, or zeros."""
        rows = self.x.shape[0]
        if given is None:
            return broadcast_to(constant(self.b, 0.0, self.x.dtype), (rows, self.width))
        given = as_value(self.kind, given)
        if given.shape == (rows, self.width):
            return given
        raise GraphError(
            f"{self.kind}: a state of shape {shape_text(given.shape)} was given to begin with",
            operands=[given.node.described("initial")],
            loc=caller_loc(),
            hint=f"it must be {shape_text((rows, self.width))}",
        )

    def unrolled(
        self, step: Callable[[Value, S], tuple[Value, S]], state: S, back: bool
    ) -> tuple[Value, S]:
        """Return the results of all steps, and the last state."""
        weight, _, bias, _ = self.weights
        size, rows = weight.shape[1], self.x.shape[0]
        assert isinstance(size, int)
        flat = reshape(self.x, (rows * self.steps, self.x.shape[2]))
        fed = product(self.kind, flat, weight, bias)  # one product for the inputs of all steps
        beside = reshape(fed, (rows, self.steps * size), name=f"{self.node}.fed")
        found: list[Value] = []
        order = range(self.steps)
        for t in reversed(order) if back else order:
            result, state = step(beside[:, t * size : (t + 1) * size], state)
            found.append(result)
        joined = concat(found[::-1] if back else found, axis=1)
        shape = (rows, self.steps, self.width)
        return reshape(joined, shape, name=self.node), state


def _directions(
    kind: str,
    x: Value,
    name: str | None,
    layer: Callable[[str, Value | None, bool], tuple[Value, Value]],
    initial: Value | None,
    reverse: bool,
    bidirectional: bool,
) -> tuple[Value, Value]:
    if not bidirectional:
        return _named_layer(kind, x, name, lambda node: layer(node, initial, reverse))
    both = _both_ways(kind, x, name, layer, initial is not None or reverse)
    (ahead, last), (back, first) = both
    return concat([ahead, back], axis=2), concat([last, first], axis=1)


def _named_layer(kind: str, x: Value, name: str | None, layer: Callable[[str], S]) -> S:
    b = as_value(kind, x).builder
    node = b.free_name(kind, name)
    with b.all_or_nothing():
        return layer(node)


def _both_ways(
    kind: str,
    x: Value,
    name: str | None,
    layer: Callable[[str, None, bool], S],
    more: bool,
) -> tuple[S, S]:
    if more:
        raise GraphError(
            f"{kind}: bidirectional takes neither initial nor reverse",
            loc=caller_loc(),
            hint="declare a layer each way, and join them: gc.concat([ahead, back], axis=2)",
        )
    return _named_layer(
        kind, x, name, lambda node: (layer(node, None, False), layer(f"{node}.reverse", None, True))
    )


def _parameter(b: Builder, name: str, shape: Sequence[int], dtype: str, init: Any) -> Value:
    try:
        op = Parameter(tuple(shape), dtype, resolve(init, tuple(shape)))
    except ValueError as error:
        raise GraphError(f"parameter {name!r}: {error}", loc=caller_loc()) from None
    return b.apply(op, name=name)


def _sizes(kind: str, x: Value) -> tuple[int, int]:
    """Return the number of steps, and of features in each; raise GraphError if x does not fit."""
    rows: Dim | None
    rows, steps, features = x.shape if x.type.rank == 3 else (None, None, None)
    if rows is not None and isinstance(steps, int) and isinstance(features, int) and steps:
        return steps, features
    raise GraphError(
        f"{kind}: x is {x.type}",
        operands=[x.node.described("x")],
        loc=caller_loc(),
        hint="it must be (N, T, I): T steps of I numbers each",
    )


def _checked_width(kind: str, width: object) -> int:
    hint = f"it is the size of the state: gc.{kind}(x, 32)"
    return checked_whole(f"{kind}: width", width, hint=hint)
