"""One op as a fused kernel of its own, and examples of other sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.kernels.body import Axis, Span
from graphc.kernels.expr import BodyBuilder, Expr
from graphc.kernels.interpret import run
from graphc.kernels.kernel import Loop
from graphc.kernels.matrix import Space, broadcast_span, by_lead, flat, leads
from graphc.op import Array, Op
from graphc.tensor_type import Shape, TensorType, shape_at
from tests.ops.example import Example


def own_space(op: Op, ins: Sequence[TensorType]) -> Space:
    """The matrix that `along` says the op is at home in."""
    along = op.along(ins)
    if along == "all":
        return flat(ins[0].shape)
    shape = (op.infer(ins) if along == "elements" else ins[0]).shape
    return by_lead(shape, own_lead(op, ins))


def own_lead(op: Op, ins: Sequence[TensorType]) -> int:
    """How many dimensions are its rows: the fewest by which operands on elements broadcast."""
    if op.along(ins) != "elements" or op.spans(ins) is not None:
        return op.lead(ins)
    result = op.infer(ins).shape
    fits = (n for n in leads(result) if all(broadcast_span(x.shape, result, n) for x in ins))
    return next(fits, 1)


def own_spans(op: Op, ins: Sequence[TensorType]) -> tuple[Span, ...]:
    """How the operands stand in it."""
    spans = op.spans(ins)
    if spans is None:
        result, lead = op.infer(ins).shape, own_lead(op, ins)
        found = [broadcast_span(x.shape, result, lead) for x in ins]
        spans = tuple(span for span in found if span is not None)
    assert len(spans) == len(ins), "every operand stands somewhere"
    return spans


def own_loop(op: Op, ins: Sequence[TensorType]) -> tuple[Loop, Expr]:
    """The op of operands in0, in1, ... to `out`, and its expression."""
    along, space = op.along(ins), own_space(op, ins)
    axis: Axis = "rows" if along == "rows" else "columns"
    b = BodyBuilder()
    spans = own_spans(op, ins)
    operands = [b.load(f"in{i}", spans[i], x.dtype) for i, x in enumerate(ins)]
    value = op.scalar(operands, axis)
    b.store(value, "out", _result_span(op.infer(ins).shape, along, space))
    return Loop(*space, axis, b.body(), "none"), value


def _result_span(shape: Shape, along: str, space: Space) -> Span:
    if along == "all":
        return "one"
    if along == "elements" or (
        len(shape) > 1 and space in (by_lead(shape, n) for n in leads(shape))
    ):
        return "each"
    return "row" if along == "columns" else "column"


def computed(op: Op, types: Sequence[TensorType], ins: Sequence[Array], n: int) -> Array:
    """The result by the op's own kernel."""
    arrays = _buffers(op.infer(types), ins, n)
    run(own_loop(op, types)[0], arrays, n)
    return arrays["out"]


def operands_of(example: Example, n: int) -> dict[str, Array]:
    """The buffers of an example's own kernel."""
    return _buffers(example.op.infer(example.types), example.operands(n), n)


def _buffers(result: TensorType, ins: Sequence[Array], n: int) -> dict[str, Array]:
    arrays = {f"in{i}": x for i, x in enumerate(ins)}
    arrays["out"] = np.full(shape_at(result.shape, n), 77).astype(result.dtype)
    return arrays


def resized(example: Example, sizes: Mapping[int, int]) -> Example:
    """The example with other sizes for some of its dimensions."""
    new = {f: _sized(v, sizes) for f, v in vars(example.op).items() if f in ("shape", "depth")}
    op = dataclasses.replace(example.op, **new) if new else example.op  # type: ignore[type-var]
    types = tuple(t.with_shape(_sized(t.shape, sizes)) for t in example.types)
    fill = tuple(_sized(f, sizes) if isinstance(f, int) else f for f in example.fill)
    return Example(op, types, fill)


def _sized(value: Any, sizes: Mapping[int, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_sized(part, sizes) for part in value)
    return sizes.get(value, value) if isinstance(value, int) else value
