"""Converters of recurrent layers, unrolled step by step: x (steps, batch, features).

Weights are (directions, gates * units, ...), with the rows of each gate one block below the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import graphc as gc
from graphc.ir.build import Value
from graphc.ir.tensor_type import Dim
from graphc.onnx.call import Call, Result
from graphc.onnx.known import NotSupported


@dataclass(frozen=True)
class Cell:
    """The weights of one direction, transposed so that rows of samples are multiplied by them."""

    input: Value
    hidden: Value
    input_bias: Value | None
    hidden_bias: Value | None
    peephole: Value | None
    units: int


State = tuple[Value, ...]
Step = Callable[[Cell, Value, State], State]


def _parts(value: Value, units: int) -> list[Value]:
    """Return the columns of each gate."""
    size = value.shape[-1]
    assert isinstance(size, int)
    return [value[..., start : start + units] for start in range(0, size, units)]


def _product(x: Value, weight: Value, bias: Value | None) -> Value:
    out = gc.matmul(x, weight)
    return out if bias is None else out + bias


def _cell(call: Call, direction: int, units: int) -> Cell:
    weight, recurrent = (gc.transpose(call.value(i)[direction]) for i in (1, 2))
    biases: list[Value | None] = [None, None]
    if call.has(3):
        both, half = call.value(3)[direction], weight.shape[1]
        assert isinstance(half, int)
        biases = [both[:half], both[half:]]
    peephole = call.value(7)[direction] if call.op == "LSTM" and call.has(7) else None
    return Cell(weight, recurrent, biases[0], biases[1], peephole, units)


def _rnn_step(cell: Cell, x: Value, state: State) -> State:
    """Return h = tanh(x W + h R + b)."""
    (h,) = state
    inside = _product(x, cell.input, cell.input_bias)
    return (gc.tanh(inside + _product(h, cell.hidden, cell.hidden_bias)),)


def _lstm_step(cell: Cell, x: Value, state: State) -> State:
    """Return h and c; gates: input, output, forget, cell; peepholes: input, output, forget."""
    h, c = state
    inside = _product(x, cell.input, cell.input_bias)
    i, o, f, g = _parts(inside + _product(h, cell.hidden, cell.hidden_bias), cell.units)
    holes = _parts(cell.peephole, cell.units) if cell.peephole is not None else None
    if holes is not None:
        i, f = i + holes[0] * c, f + holes[2] * c
    c = gc.sigmoid(f) * c + gc.sigmoid(i) * gc.tanh(g)
    o = gc.sigmoid(o if holes is None else o + holes[1] * c)
    return o * gc.tanh(c), c


def _gru_step(before_reset: bool) -> Step:
    """Return a step with gates update, reset, hidden, and the reset before or after the product."""

    def step(cell: Cell, x: Value, state: State) -> State:
        (h,) = state
        zx, rx, nx = _parts(_product(x, cell.input, cell.input_bias), cell.units)
        if before_reset:
            zh, rh, nh = _parts(_product(h, cell.hidden, cell.hidden_bias), cell.units)
            z, r = gc.sigmoid(zx + zh), gc.sigmoid(rx + rh)
            n = gc.tanh(nx + r * nh)
        else:
            two = cell.hidden[:, : 2 * cell.units]
            biases = None if cell.hidden_bias is None else cell.hidden_bias[: 2 * cell.units]
            zh, rh = _parts(_product(h, two, biases), cell.units)
            z, r = gc.sigmoid(zx + zh), gc.sigmoid(rx + rh)
            bias = None if cell.hidden_bias is None else cell.hidden_bias[2 * cell.units :]
            n = gc.tanh(nx + _product(r * h, cell.hidden[:, 2 * cell.units :], bias))
        return ((1.0 - z) * n + z * h,)

    return step


def _check(call: Call, usual: tuple[str, ...]) -> None:
    given = call.attribute("activations")
    if given is not None and tuple(name.capitalize() for name in given) != usual * (
        len(given) // len(usual)
    ):
        raise NotSupported(f"activations={given}")
    call.unless(input_forget=0)
    if call.attribute("clip"):
        raise NotSupported("clip")
    if call.has(4):
        steps = call.type(0).shape[1 if call.attribute("layout", 0) else 0]
        if not (np.asarray(call.array(4)) == steps).all():
            raise NotSupported("sequences of different lengths")


def _layer(usual: tuple[str, ...], states: int) -> Callable[[Call], Result]:
    def convert(call: Call) -> Result:
        _check(call, usual)
        step: Step = {"RNN": _rnn_step, "LSTM": _lstm_step}.get(call.op) or _gru_step(
            bool(call.attribute("linear_before_reset", 0))
        )
        return _unrolled(call, step, states)

    return convert


def _unrolled(call: Call, step: Step, states: int) -> Result:
    x, batch_first = call.value(0), bool(call.attribute("layout", 0))
    if batch_first:
        x = gc.transpose(x, (1, 0, 2))
    steps, batch = x.shape[:2]
    units = call.attribute("hidden_size") or call.type(2).shape[-1]
    if not isinstance(steps, int) or steps < 1 or not isinstance(units, int):
        raise NotSupported(f"a sequence of {steps} steps")
    way = call.attribute("direction", "forward")
    ways = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(way)
    if ways is None:
        raise NotSupported(f"direction={way!r}")
    sequences, finals = [], []
    for direction, back in enumerate(ways):
        cell = _cell(call, direction, units)
        state = _start(call, direction, states, (batch, units), batch_first)
        found: list[Value] = []
        for time in reversed(range(steps)) if back else range(steps):
            state = step(cell, x[time], state)
            found.append(state[0])
        sequences.append(_stack(found[::-1] if back else found, 0))
        finals.append(state)
    whole = _stack(sequences, 1)
    last = [_stack([final[i] for final in finals], 0) for i in range(states)]
    if batch_first:
        whole = gc.transpose(whole, (2, 0, 1, 3))
        last = [gc.transpose(value, (1, 0, 2)) for value in last]
    return [whole, *last]


def _start(
    call: Call, direction: int, states: int, shape: tuple[Dim, Dim], batch_first: bool
) -> State:
    found = []
    for position in range(5, 5 + states):
        if call.has(position):
            value = call.value(position)
            found.append(value[:, direction] if batch_first else value[direction])
        else:
            zero = call.constant(np.zeros((1, 1)), call.type(0).dtype)
            found.append(gc.broadcast_to(zero, shape))
    return tuple(found)


def _stack(values: list[Value], axis: int) -> Value:
    if len(values) > 1:
        return gc.stack(values, axis)
    return gc.unsqueeze(values[0], axis)


CONVERTERS: dict[str, Callable[[Call], Result]] = {
    "GRU": _layer(("Sigmoid", "Tanh"), 1),
    "LSTM": _layer(("Sigmoid", "Tanh", "Tanh"), 2),
    "RNN": _layer(("Tanh",), 1),
}
