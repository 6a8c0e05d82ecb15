"""One op as a fused kernel of its own, and examples of other sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.expr import Axis, BodyBuilder, Broadcast, Expr
from graphc.ir.graph import Node
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import TensorType, numpy_dtype, shape_at
from graphc.kernels.interpret import run
from graphc.kernels.kernel import Loop
from graphc.kernels.traits import placements_of
from tests.ops.example import Example


def own_loop(op: Op, ins: Sequence[TensorType]) -> tuple[Loop, Expr]:
    """The op of operands in0, in1, ... to `out` over its own matrix, and its expression."""
    return next(loops_of(op, ins))


def loops_of(op: Op, ins: Sequence[TensorType]) -> Iterator[tuple[Loop, Expr]]:
    """The op over each matrix that it can run over."""
    result, iteration = op.infer(ins), op.iteration(ins)
    axis: Axis = "rows" if iteration == "rows" else "columns"
    node = Node("out", op, tuple(f"in{i}" for i in range(len(ins))), result)
    for space, placement in placements_of(node, list(ins), node.op.iteration(ins)).items():
        b = BodyBuilder()
        operands = [b.load(f"in{i}", placement.operands[i], x.dtype) for i, x in enumerate(ins)]
        value = op.scalar(operands, axis)
        kind: Broadcast = "one" if iteration == "all" else placement.kind
        b.store(value, "out", kind if result.rank else "one")
        yield Loop(*space, axis, b.body(), "none"), value


def computed(op: Op, types: Sequence[TensorType], ins: Sequence[Array], n: int) -> Array:
    """The result by the op's own kernel."""
    return next(computed_ways(op, types, ins, n))


def computed_ways(
    op: Op, types: Sequence[TensorType], ins: Sequence[Array], n: int
) -> Iterator[Array]:
    """The result over each matrix that the op can run over."""
    for loop, _ in loops_of(op, types):
        arrays = _buffers(op.infer(types), ins, n)
        run(loop, arrays, n)
        yield arrays["out"]


def operands_of(example: Example, n: int) -> dict[str, Array]:
    """The buffers of an example's own kernel."""
    return _buffers(example.op.infer(example.types), example.operands(n), n)


def _buffers(result: TensorType, ins: Sequence[Array], n: int) -> dict[str, Array]:
    arrays = {f"in{i}": x for i, x in enumerate(ins)}
    arrays["out"] = np.full(shape_at(result.shape, n), 77).astype(numpy_dtype(result.dtype))
    return arrays


def resized(example: Example, sizes: Mapping[int, int]) -> Example:
    """The example with other sizes for some of its dimensions."""
    new = {
        f: _sized(v, sizes)
        for f, v in vars(example.op).items()
        if f in ("shape", "depth", "queries")
    }
    op = dataclasses.replace(example.op, **new) if new else example.op  # type: ignore[type-var]
    types = tuple(t.with_shape(_sized(t.shape, sizes)) for t in example.types)
    fill = tuple(_sized(f, sizes) if isinstance(f, int) else f for f in example.fill)
    return Example(op, types, fill)


def _sized(value: Any, sizes: Mapping[int, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_sized(part, sizes) for part in value)
    return sizes.get(value, value) if isinstance(value, int) else value
