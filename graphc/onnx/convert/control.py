"""Converters of branches and loops, which are unrolled: their course is known at import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.onnx.call import Call, Result
from graphc.onnx.convert.shape import reshaped
from graphc.onnx.known import NotSupported, Operand, type_of


def _if(call: Call) -> Result:
    branch = "then_branch" if bool(call.number(0)) else "else_branch"
    return call.scope.inner(call.required(branch), [], call.name)


def _loop(call: Call) -> Result:
    """Unroll a loop until its condition is false or its trip count is reached."""
    body = call.required("body")
    turns = call.number(0, inf)
    going = bool(call.number(1, True))
    carried = [call.operand(i) for i in range(2, len(call))]
    rows: list[list[Operand]] = []
    while going and len(rows) < turns:
        turn = np.array(len(rows), np.int64)
        name = f"{call.name}/{len(rows)}"
        condition, *results = call.scope.inner(body, [turn, np.array(True), *carried], name)
        if not isinstance(condition, np.ndarray):
            raise NotSupported("a loop whose end depends on computed numbers")
        going = bool(condition)
        carried, row = results[: len(carried)], results[len(carried) :]
        rows.append(row)
    return [*carried, *_stacked(call, rows, [0] * 64)]


def _scan(call: Call) -> Result:
    """Unroll a scan: one iteration for each slice of the scanned sequences."""
    body = call.required("body")
    if call.version < 9:
        raise NotSupported("scans of opset 8, which have a batch")
    count = call.required("num_scan_inputs")
    states = [call.operand(i) for i in range(len(call) - count)]
    scanned = [call.operand(i) for i in range(len(call) - count, len(call))]
    axes = [
        axis % type_of(x).rank
        for axis, x in zip(call.attribute("scan_input_axes", (0,) * count), scanned, strict=True)
    ]
    back = call.attribute("scan_input_directions", (0,) * count)
    turns = type_of(scanned[0]).shape[axes[0]]
    if not isinstance(turns, int):
        raise NotSupported(f"a scan of {turns} turns")
    rows: list[list[Operand]] = []
    for turn in range(turns):
        parts = [
            _part(call, x, axis, turns - 1 - turn if turned else turn)
            for x, axis, turned in zip(scanned, axes, back, strict=True)
        ]
        name = f"{call.name}/{turn}"
        results = call.scope.inner(body, [*states, *parts], name)
        states, row = results[: len(states)], results[len(states) :]
        rows.append(row)
    kinds = len(rows[0]) if rows else 0
    turned = call.attribute("scan_output_directions", (0,) * kinds)
    columns = [[row[i] for row in (reversed(rows) if turned[i] else rows)] for i in range(kinds)]
    into = call.attribute("scan_output_axes", (0,) * kinds)
    return [*states, *_stacked(call, list(zip(*columns, strict=True)), into)]


def _part(call: Call, x: Operand, axis: int, place: int) -> Operand:
    if isinstance(x, np.ndarray):
        return np.asarray(np.take(x, place, axis))
    value = call.scope.value(x)
    return value[(*(slice(None),) * axis, place)]


def _stacked(call: Call, rows: Sequence[Sequence[Operand]], axes: Sequence[int]) -> list[Operand]:
    """Return the results of all iterations, stacked along a new axis."""
    found: list[Operand] = []
    for parts, axis in zip(zip(*rows, strict=True), axes, strict=False):
        known = [part for part in parts if isinstance(part, np.ndarray)]
        if len(known) == len(parts):
            spend_array(sum(part.size for part in known))
            found.append(np.stack(known, axis))
            continue
        values = [call.scope.value(part) for part in parts]
        if len(values) > 1:
            found.append(gc.stack(values, axis))
        else:
            shape = list(values[0].shape)
            axis %= len(shape) + 1
            found.append(reshaped(call, values[0], [*shape[:axis], 1, *shape[axis:]]))
    return found


CONVERTERS: dict[str, Callable[[Call], Result]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
}
