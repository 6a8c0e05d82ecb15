"""Converters of branches, recurrent layers, and sequences of tensors.

Conditions and the lengths of sequences of tensors are known at import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import graphc as gc
from graphc.base.work import spend_nodes
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import Dim
from graphc.onnx.call import Call, Converter, KnownSequence, NotSupported, Operand, Result
from graphc.onnx.convert.axes import reshaped, split_at, split_axis
from graphc.onnx.convert.loops import loop, scan, stack


def _if(call: Call) -> Result:
    branch = "then_branch" if bool(call.number(0)) else "else_branch"
    return call.scope.inner(call.required(branch), [], f"{call.name}/")


@dataclass(frozen=True)
class Cell:
    """The weights of one direction, transposed so that rows of samples are multiplied by them."""

    input: Value
    hidden: Value
    input_bias: Value | None
    hidden_bias: Value | None
    peephole: Value | None
    units: int
    linear_before_reset: bool


State = tuple[Value, ...]
Step = Callable[[Cell, Value, State], State]
"""One step: from the weights, x W + b of the step, and the state, to the next state."""


def _gates(value: Value, units: int) -> list[Value]:
    """Return the columns of a row of gates, or of steps, `units` columns for each."""
    size = value.shape[-1]
    assert isinstance(size, int)
    return [value[..., start : start + units] for start in range(0, size, units)]


def _affine(x: Value, weight: Value, bias: Value | None) -> Value:
    out = gc.matmul(x, weight)
    return out if bias is None else out + bias


def _preactivation(cell: Cell, fed: Value, h: Value) -> Value:
    """Return what the activations are applied to: the sum of both products."""
    return fed + _affine(h, cell.hidden, cell.hidden_bias)


def _cell(call: Call, direction: int, units: int) -> Cell:
    weight, recurrent = (gc.transpose(call.value(i)[direction]) for i in (1, 2))
    biases: tuple[Value | None, Value | None] = (None, None)
    if call.has(3):
        both, half = call.value(3)[direction], weight.shape[1]
        assert isinstance(half, int)
        biases = both[:half], both[half:]
    peephole = call.value(7)[direction] if call.op == "LSTM" and call.has(7) else None
    linear_before_reset = bool(call.attribute("linear_before_reset", 0))
    return Cell(weight, recurrent, *biases, peephole, units, linear_before_reset)


def _rnn_step(cell: Cell, fed: Value, state: State) -> State:
    """Return h = tanh(x W + h R + b)."""
    (h,) = state
    return (gc.tanh(_preactivation(cell, fed, h)),)


def _lstm_step(cell: Cell, fed: Value, state: State) -> State:
    """Return h and c; gates: input, output, forget, cell; peepholes: input, output, forget."""
    h, c = state
    i, o, f, g = _gates(_preactivation(cell, fed, h), cell.units)
    holes = _gates(cell.peephole, cell.units) if cell.peephole is not None else None
    if holes is not None:
        i, f = i + holes[0] * c, f + holes[2] * c
    c = gc.sigmoid(f) * c + gc.sigmoid(i) * gc.tanh(g)
    o = gc.sigmoid(o if holes is None else o + holes[1] * c)
    return o * gc.tanh(c), c


def _gru_step(cell: Cell, fed: Value, state: State) -> State:
    """Return h; gates: update, reset, hidden, with the reset before or after the product."""
    (h,) = state
    zx, rx, nx = _gates(fed, cell.units)
    weight, bias = cell.hidden, cell.hidden_bias
    if cell.linear_before_reset:
        zh, rh, nh = _gates(_affine(h, weight, bias), cell.units)
        z, r = gc.sigmoid(zx + zh), gc.sigmoid(rx + rh)
        n = gc.tanh(nx + r * nh)
    else:
        two = 2 * cell.units
        gates = _affine(h, weight[:, :two], None if bias is None else bias[:two])
        z, r = (gc.sigmoid(a + b) for a, b in zip((zx, rx), _gates(gates, cell.units), strict=True))
        last = None if bias is None else bias[two:]
        n = gc.tanh(nx + _affine(r * h, weight[:, two:], last))
    return ((1.0 - z) * n + z * h,)


def _check(call: Call, usual: tuple[str, ...]) -> None:
    given = call.attribute("activations")
    if given is not None and tuple(name.capitalize() for name in given) != usual * (
        len(given) // len(usual)
    ):
        raise NotSupported(f"activations={given}")
    call.unless(input_forget=0)
    if call.attribute("clip"):
        raise NotSupported("clip")


def _lengths(call: Call, batch: Dim, steps: int) -> Value | None:
    """Return the number of steps of each row, if rows have their own."""
    if not call.has(4) or (call.known(4) and (call.array(4) == steps).all()):
        return None
    if call.type(4).shape != (batch,):
        raise NotSupported("sequences whose lengths are not one a row")
    return call.value(4)


def _layer(usual: tuple[str, ...], states: int, step: Step) -> Converter:
    def convert(call: Call) -> Result:
        _check(call, usual)
        return _looped(call, step, states)

    return convert


def _looped(call: Call, step: Step, states: int) -> Result:
    x, batch_first = call.value(0), bool(call.attribute("layout", 0))
    if not batch_first:
        x = gc.transpose(x, (1, 0, 2))
    batch, steps = x.shape[:2]
    units = call.attribute("hidden_size") or call.type(2).shape[-1]
    if not isinstance(steps, int) or steps < 1 or not isinstance(units, int):
        raise NotSupported(f"a sequence of {steps} steps")
    way = call.attribute("direction", "forward")
    ways = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(way)
    if ways is None:
        raise NotSupported(f"direction={way!r}")
    lengths = _lengths(call, batch, steps)
    sequences, finals = [], []
    for direction, back in enumerate(ways):
        cell = _cell(call, direction, units)
        state = _start(call, direction, states, (batch, units), batch_first)
        found, state = _direction(cell, x, state, step, back, lengths)
        sequences.append(found)
        finals.append(state)
    last = [stack([final[i] for final in finals], 0) for i in range(states)]
    if batch_first:
        last = [gc.transpose(value, (1, 0, 2)) for value in last]
        return [stack(sequences, 2), *last]
    return [_steps_first(sequences), *last]


def _direction(
    cell: Cell, x: Value, start: State, step: Step, back: bool, lengths: Value | None
) -> tuple[Value, State]:
    """Return the states h of all steps, (N, T, units), and the last states.

    The products of x of all steps are one: passes take them out of the loop if rows are a batch.
    """
    inside = x.type.batched
    if not inside:
        rows, steps, features = x.shape
        fed = _affine(gc.reshape(x, (rows * steps, features)), cell.input, cell.input_bias)
        x = gc.reshape(fed, (rows, steps, fed.shape[1]))

    def body(part: Value, *state: Value) -> tuple[Value, State]:
        fed = _affine(part, cell.input, cell.input_bias) if inside else part
        after = step(cell, fed, state)
        return after[0], after

    return gc.scan(body, x, start, lengths=lengths, reverse=back)


def _steps_first(sequences: Sequence[Value]) -> Value:
    """Return the states (N, T, units) of each direction as (T, directions, N, units)."""
    if len(sequences) > 1:
        return gc.transpose(gc.stack(sequences, 2), (1, 2, 0, 3))
    return gc.unsqueeze(gc.transpose(sequences[0], (1, 0, 2)), 1)  # a transpose may undo it


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


def _construct(call: Call) -> KnownSequence:
    return KnownSequence(tuple(call.operand(i) for i in range(len(call))))


def _split(call: Call) -> KnownSequence:
    """Split along an axis into single entries, parts of one size, or parts of given sizes."""
    x, axis, dim = split_axis(call)
    single = not call.has(1)
    spend_nodes(dim if single or call.array(1).ndim else dim // max(int(call.array(1)), 1))
    sizes = (1,) * dim if single else _sizes(call.array(1), dim)
    parts: list[Operand] = [*split_at(call, x, axis, sizes)]
    if single and not call.attribute("keepdims", 1):
        shape = [*x.shape[:axis], *x.shape[axis + 1 :]]
        parts = [reshaped(call, part, shape) for part in parts]
    return KnownSequence(tuple(parts))


def _sizes(split: Array, dim: int) -> tuple[int, ...]:
    if split.ndim == 0:
        size = int(split)
        if size < 1:
            raise NotSupported(f"{dim} elements are split into parts of {size}")
        return tuple(min(size, dim - start) for start in range(0, dim, size))
    sizes = tuple(int(size) for size in split)
    if sum(sizes) != dim or min(sizes, default=0) < 0:
        raise NotSupported(f"{dim} elements are split into {sizes}")
    return sizes


def _place(call: Call, position: int, end: int) -> int:
    """Return a position from 0 to before `end`; a negative one counts from the sequence's end."""
    length = len(call.entries(0))
    place = int(call.number(position, end - 1))
    place += length if place < 0 else 0
    if not 0 <= place < end:
        raise NotSupported(f"entry {place} of a sequence of {length}")
    return place


def _at(call: Call) -> Operand:
    entries = call.entries(0)
    return entries[_place(call, 1, len(entries))]


def _insert(call: Call) -> KnownSequence:
    """Insert an entry before a position, or after the last one."""
    entries = call.entries(0)
    place = _place(call, 2, len(entries) + 1)
    return KnownSequence((*entries[:place], call.operand(1), *entries[place:]))


def _erase(call: Call) -> KnownSequence:
    """Return the sequence without the entry at a position, or without the last one."""
    entries = call.entries(0)
    place = _place(call, 1, len(entries))
    return KnownSequence((*entries[:place], *entries[place + 1 :]))


def _concat(call: Call) -> Value:
    values = [call.scope.value(entry) for entry in call.entries(0)]
    axis = call.required("axis")
    return gc.stack(values, axis) if call.attribute("new_axis", 0) else gc.concat(values, axis)


UNFOLDED: dict[str, Converter] = {
    "ConcatFromSequence": _concat,
    "If": _if,
    "Loop": loop,
    "Scan": scan,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _construct,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": lambda call: np.array(len(call.entries(0)), np.int64),
    "SplitToSequence": _split,
}
"""The converters that constant folding skips, since they keep known numbers known."""

CONVERTERS: dict[str, Converter] = {
    "GRU": _layer(("Sigmoid", "Tanh"), 1, _gru_step),
    "LSTM": _layer(("Sigmoid", "Tanh", "Tanh"), 2, _lstm_step),
    "RNN": _layer(("Tanh",), 1, _rnn_step),
    **UNFOLDED,
}
