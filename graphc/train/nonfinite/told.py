"""The text of errors about numbers that are not finite."""

from __future__ import annotations

from math import isfinite

import numpy as np

from graphc.base.errors import NotFiniteError, Operand
from graphc.base.loc import Loc, caller_loc
from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ops.source import Input, Parameter, State
from graphc.runtime.executor import Executor
from graphc.runtime.row_axis import RowAxis
from graphc.train.nonfinite.trace import Origin
from graphc.train.position import Position
from graphc.train.source import Source

_HINTS = {
    "log": "keep what it reads above 0: gc.log(gc.maximum(x, 1e-12))",
    "div": "keep the divisor away from 0: x / gc.maximum(y, 1e-12)",
    "sqrt": "keep what it reads above 0: gc.sqrt(gc.maximum(x, 1e-12))",
    "exp": "keep what it reads small: gc.exp(gc.minimum(x, 80))",
}

_PARTS = {"forward": "forward pass", "backward": "backward pass", "update": "update"}

_GROWN = "numbers have grown too large: a smaller lr, or clip_norm= in the optimizer"
_SLOPE = "the derivative is infinite or undefined here: keep its operands away from that place"


def found(
    ex: Executor, origin: Origin, at: Position, rows: int, loss: float, source: Source
) -> NotFiniteError:
    """Return the error for a step that was run again: the node, its operands, the user's line."""
    node, values = origin.node, origin.values
    what = f"loss is {loss:g}" if not isfinite(loss) else "the state becomes bad"
    begun = f"{what} in epoch {at.epoch}, step {at.step + 1}: {_named(origin)} "
    if origin.sure:
        array = values[node.name]
        begun += f"is the first value that is not finite, {_bad_text(array)} of {array.size}"
        place = _place(origin, at, source)
    else:
        begun += "has the largest values, which the plan rounds beyond what is finite"
        place = ""
    roles = _roles(node)
    operands = [
        Operand(role, name, described(values[name]), _loc(origin.graph[name]))
        for role, name in zip(roles, node.inputs, strict=True)
    ]
    return NotFiniteError(
        begun + place,
        operands=operands
        or [Operand("value", node.name, described(values[node.name]), _loc(node))],
        loc=_loc(node) or caller_loc(),
        hint=_hint(origin),
    )


def not_again(at: Position, loss: float) -> NotFiniteError:
    """Return the error for steps that stay finite when run again: their batches were different."""
    what = "the state" if isfinite(loss) else f"the loss {loss:g}"
    return NotFiniteError(
        f"{what} is not finite by epoch {at.epoch}, step {at.step + 1}, but all is finite when "
        "the steps are run again",
        loc=caller_loc(),
        hint="a function that makes batches must give the same ones for the same epoch",
    )


def described(array: Array) -> str:
    """Return an array's type, range and mean, and its counts of zeros, NaN and infinities."""
    text = f"{array.dtype.name}{list(array.shape)}"
    if array.dtype.kind == "f":
        finite: Array = array[np.isfinite(array)].astype(np.float64)
    else:
        finite = array.reshape(-1).astype(np.float64)
    if finite.size == 1 and array.size == 1:
        return f"{text} is {finite[0]:.4g}"
    if finite.size:
        text += f" from {finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
    zeros = int(np.count_nonzero(finite == 0))
    bad = _bad_text(array)
    return text + (f", {zeros} zeros" if zeros else "") + (f", {bad}" if bad else "")


def _bad_text(array: Array) -> str:
    if array.dtype.kind != "f":
        return ""
    counts = {
        "nan": np.isnan(array).sum(),
        "inf": np.isposinf(array).sum(),
        "-inf": np.isneginf(array).sum(),
    }
    return " and ".join(f"{count} {word}" for word, count in counts.items() if count)


def _named(origin: Origin) -> str:
    node = origin.node
    if isinstance(node.op, (Input, Parameter, State)):
        return f"{node.op.name} {node.name!r}"
    return f"{node.op.name} {node.name!r} of the {_PARTS[origin.part]}"


def _place(origin: Origin, at: Position, source: Source) -> str:
    """Return, for data, the row of the first bad number, in the batch and in the data."""
    node = origin.node
    if not isinstance(node.op, Input):
        return ""
    axis = RowAxis.of(node.type)
    if axis is None:
        return ""
    first = np.argwhere(~np.isfinite(origin.values[node.name]))[0][axis.axis]
    row = int(first) // axis.factor
    data = source.row(at.epoch, at.step, row)
    return f"; row {row} of the batch" + (f", row {data} of the data" if data is not None else "")


def _hint(origin: Origin) -> str:
    node = origin.node
    if isinstance(node.op, Input):
        return f"clean the data: np.isfinite({node.name}) is false there"
    if isinstance(node.op, (Parameter, State)):
        return "it was not finite before the step either: assign finite values"
    if not origin.sure or _large(origin):
        return _GROWN
    if origin.part == "backward":
        return _SLOPE
    return _HINTS.get(node.op.name, "") if origin.part == "forward" else _GROWN


def _large(origin: Origin) -> bool:
    """Return whether the operands are so large that their product is not finite."""
    if origin.node.op.name == "exp":
        return False
    floats = [origin.values[name] for name in origin.node.inputs]
    floats = [array for array in floats if array.dtype.kind == "f"]
    limit = min((float(np.sqrt(np.finfo(array.dtype).max)) for array in floats), default=np.inf)
    return any(float(np.abs(array).max(initial=0)) > limit * 1e-3 for array in floats)


def _roles(node: Node) -> list[str]:
    roles = node.op.roles
    return [roles[i] if i < len(roles) else f"operand {i + 1}" for i in range(len(node.inputs))]


def _loc(node: Node) -> Loc | None:
    return node.locs[0] if node.locs else None
