"""Converters of loops: a body becomes the step of a loop, if it can be declared once for all steps.

If not, as where a carried value is the shape of another, the body is read again for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from math import inf

import numpy as np
from onnx import GraphProto

import graphc as gc
from graphc.base.errors import GraphError
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.step_graph import Carried, Kind, StepGraph
from graphc.ir.tensor_type import TensorType
from graphc.onnx.call import Call, NeedsInputs, NotSupported, Operand, Result, is_known, type_of
from graphc.onnx.model_file import names_read
from graphc.ops.loops.op import Scan
from graphc.ops.loops.step_builder import StepBuilder
from graphc.ops.shape import as_dtype

LENGTHS = "graphc.lengths"
"""The metadata key of the name of the value that has the number of steps of each row."""
Operands = Sequence[Operand]
Step = Callable[[Operand, Operands, Operands], tuple[Operands, Operands]]
"""From the number of a step, states and slices to the next states and the results of the step."""
Scanned = tuple[Operand, int, bool]
"""A sequence, the axis of its steps, and whether they are read in the other direction."""
Results = tuple[list[Value], list[Value]]
"""The last states, and the results of all steps with the steps in front."""


def loop(call: Call) -> Result:
    """Convert a loop that ends when its condition is false or its trip count is reached."""
    body = call.required("body")
    count = call.number(0, inf)
    continues = bool(call.number(1, True))
    carried = [call.operand(i) for i in range(2, len(call))]

    def step(number: Operand, states: Operands, _: Operands) -> tuple[Operands, Operands]:
        number = as_dtype(call.scope.value(number), "int64")
        going, *results = _inside(call, body, [number, np.array(True), *states])
        if not isinstance(going, np.ndarray) or not going:
            raise NotSupported("a loop that may end early")
        return results[: len(states)], results[len(states) :]

    found = None
    if continues and count < inf:
        found = _at_once(call, body, step, carried, (), int(count), False)
    if found is not None:
        return [*found[0], *found[1]]
    rows: list[list[Operand]] = []
    while continues and len(rows) < count:
        number = np.array(len(rows), np.int64)
        prefix = f"{call.name}/{len(rows)}/"
        condition, *results = call.scope.inner(body, [number, np.array(True), *carried], prefix)
        if not isinstance(condition, np.ndarray):
            raise NotSupported("a loop whose end depends on computed numbers")
        continues = bool(condition)
        carried, row = results[: len(carried)], results[len(carried) :]
        rows.append(row)
    return [*carried, *_stacked(call, rows, repeat(0))]


def scan(call: Call) -> Result:
    """Convert a scan: one step for each slice of the scanned sequences."""
    body = call.required("body")
    if call.version < 9:
        raise NotSupported("scans of opset 8, which have a batch")
    inputs = call.required("num_scan_inputs")
    operands = [call.operand(i) for i in range(len(call))]
    states, scanned = operands[: len(call) - inputs], operands[len(call) - inputs :]
    axes = [
        axis % type_of(x).rank
        for axis, x in zip(call.attribute("scan_input_axes", (0,) * inputs), scanned, strict=True)
    ]
    back = call.attribute("scan_input_directions", (0,) * inputs)
    count = type_of(scanned[0]).shape[axes[0]]
    if not isinstance(count, int):
        raise NotSupported(f"a scan of {count} iterations")
    kinds = len(body.output) - len(states)
    backward = call.attribute("scan_output_directions", (0,) * kinds)
    into = call.attribute("scan_output_axes", (0,) * kinds)

    def step(_: Operand, states: Operands, slices: Operands) -> tuple[Operands, Operands]:
        results = _inside(call, body, [*states, *slices])
        return results[: len(states)], results[len(states) :]

    reverse = bool(back[0])
    ways = zip(scanned, axes, back, strict=True)
    sequences = [(x, axis, bool(way) != reverse) for x, axis, way in ways]
    found = _at_once(call, body, step, states, sequences, count, reverse)
    if found is not None:
        ends = zip(found[1], into, backward, strict=True)
        rows_of = [_steps_at(x, axis, bool(way) != reverse) for x, axis, way in ends]
        return [*found[0], *rows_of]
    rows: list[list[Operand]] = []
    for number in range(count):
        slices = [
            _part(call, x, axis, count - 1 - number if way else number)
            for x, axis, way in zip(scanned, axes, back, strict=True)
        ]
        results = call.scope.inner(body, [*states, *slices], f"{call.name}/{number}/")
        states, row = results[: len(states)], results[len(states) :]
        rows.append(row)
    columns = [[row[i] for row in (reversed(rows) if backward[i] else rows)] for i in range(kinds)]
    return [*states, *_stacked(call, list(zip(*columns, strict=True)), into)]


def _part(call: Call, x: Operand, axis: int, place: int) -> Operand:
    if isinstance(x, np.ndarray):
        return np.asarray(np.take(x, place, axis))
    value = call.scope.value(x)
    return value[(*(slice(None),) * axis, place)]


def _stacked(call: Call, rows: Sequence[Operands], axes: Iterable[int]) -> list[Operand]:
    """Return the results of all iterations, stacked along a new axis."""
    found: list[Operand] = []
    for parts, axis in zip(zip(*rows, strict=True), axes, strict=False):
        known = [part for part in parts if isinstance(part, np.ndarray)]
        if len(known) == len(parts):
            spend_array(sum(part.size for part in known))
            found.append(np.stack(known, axis))
        else:
            found.append(stack([call.scope.value(part) for part in parts], axis))
    return found


def stack(values: Sequence[Value], axis: int) -> Value:
    """Return values stacked along a new axis; a single one gets the axis only."""
    return gc.stack(values, axis) if len(values) > 1 else gc.unsqueeze(values[0], axis)


# ---------------------------------------------------------------------- as one loop


def _at_once(
    call: Call,
    body: GraphProto,
    step: Step,
    states: Operands,
    sequences: Sequence[Scanned],
    count: int,
    reverse: bool,
) -> Results | None:
    """Return the results of a loop of the net, or None if the body must be read for each step.

    An attempt that fails leaves nothing behind.
    """
    reading = call.scope.reading
    if not _is_computed(call, body, states, sequences, count):
        return None
    before = dict(reading.made)
    try:
        with reading.builder.all_or_nothing():
            return _declared(call, body, step, states, sequences, count, reverse)
    except (GraphError, NotSupported, NeedsInputs):
        reading.made = before
        return None


def _is_computed(
    call: Call, body: GraphProto, states: Operands, sequences: Sequence[Scanned], count: int
) -> bool:
    """Return whether a loop computes with inputs or parameters, and not with shapes.

    A state of known whole numbers may be a shape, so that it must stay known.
    """
    if call.scope.reading.by_graphc:
        return True
    if count < 2 or any(isinstance(x, np.ndarray) and x.dtype.kind != "f" for x in states):
        return False
    around = [call.scope.values.get(name) for name in names_read(body.node)]
    return not all(map(is_known, (*states, *(x for x, _, _ in sequences), *around)))


def _declared(
    call: Call,
    body: GraphProto,
    step: Step,
    states: Operands,
    sequences: Sequence[Scanned],
    count: int,
    reverse: bool,
) -> Results:
    """Declare the step, and the loop around it."""
    scope, reading = call.scope, call.scope.reading
    outer = reading.builder
    initial = [outer.captured(scope.value(x)) for x in states]
    given = [
        None if _is_numbers(x, count) else outer.captured(_steps_first(call, x)) for x in sequences
    ]
    inner = reading.builder = StepBuilder(outer, call.name)
    formals = [x.name.removeprefix(_left_out(call)) or "input" for x in body.input]
    first = len(formals) - len(sequences)
    names = formals[first - len(states) : first]
    try:
        slices = [
            None if x is None else inner.input(name, x.type.with_shape(x.shape[1:]))
            for name, x in zip(formals[first:], given, strict=True)
        ]
        before = [inner.input(name, x.type) for name, x in zip(names, initial, strict=True)]
        number = inner.input("step", TensorType((), "int32"))
        inner.number = number.name
        parts = [
            as_dtype(number, type_of(of).dtype) if x is None else x
            for x, (of, _, _) in zip(slices, sequences, strict=True)
        ]
        nexts, results = step(number, before, parts)
        after = [inner.captured(scope.value(x)) for x in nexts]
        stacked = [inner.captured(scope.value(x)) for x in results]
    finally:
        reading.builder = outer
    graph = StepGraph(
        tuple(inner.nodes.values()),
        tuple(x.name for x in slices if x is not None),
        tuple(Carried(x.name, y.name) for x, y in zip(before, after, strict=True)),
        tuple(inner.known.values()),
        number.name,
        _lengths(call, body, inner),
    )
    whole = [Value(outer, name) for name in inner.known]
    operands = [*(x for x in given if x is not None), *initial, *whole]
    if not operands:
        raise NotSupported("a loop that reads nothing")

    def result(kind: Kind, of: Value) -> Value:
        return outer.apply(Scan(graph, count, kind, of.name, reverse), *operands)

    rows = [result("stacked", x) for x in stacked]  # first, as gc.scan declares them
    return [result("last", x) for x in before], rows


def _inside(call: Call, body: GraphProto, operands: Operands) -> list[Operand]:
    """Return the results of a body as the step of a loop."""
    return call.scope.inner(body, operands, "", _left_out(call))


def _left_out(call: Call) -> str:
    """Return the start of all names in a body that graphc wrote: the name of the loop."""
    scope = call.scope
    return f"{scope.left_out}{call.name.removeprefix(scope.prefix)}."


def _lengths(call: Call, body: GraphProto, inner: StepBuilder) -> str:
    """Return the whole input with the steps of each row, if graphc wrote that there is one."""
    named = {entry.key: entry.value for entry in body.metadata_props}
    found = call.scope.values.get(named.get(LENGTHS, ""))
    if not call.scope.reading.by_graphc or not isinstance(found, Value):
        return ""
    fits = found.type.rank == 1 and found.dtype in ("int32", "int64")
    return inner.known.get(call.scope.value(found).name, "") if fits else ""


def _is_numbers(scanned: Scanned, count: int) -> bool:
    """Return whether a sequence is that of the numbers of steps."""
    x, _, flipped = scanned
    is_list = isinstance(x, np.ndarray) and x.dtype.kind == "i" and x.shape == (count,)
    return is_list and not flipped and np.array_equal(np.asarray(x), np.arange(count))


def _steps_first(call: Call, scanned: Scanned) -> Value:
    """Return a sequence with the steps in front, in the direction of the loop."""
    x, axis, flipped = scanned
    value = call.scope.value(x)
    if axis:
        rest = (i for i in range(value.type.rank) if i != axis)
        value = gc.transpose(value, (axis, *rest))
    return gc.flip(value, 0) if flipped else value


def _steps_at(x: Value, axis: int, flipped: bool) -> Value:
    """Return the results of all steps, as if stacked along an axis in the direction asked for."""
    x = gc.flip(x, 0) if flipped else x
    axis = axis % x.type.rank
    if not axis:
        return x
    return gc.transpose(x, (*range(1, axis + 1), 0, *range(axis + 1, x.type.rank)))
