"""One op that gathers its operands, alone in a fused kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.ir.access import AccessMap
from graphc.ir.expr import BodyBuilder, Expr
from graphc.ir.forms import places_of
from graphc.ir.op import Array
from graphc.ir.tensor_type import Dim, N, TensorType, shape_at
from graphc.kernels.iteration_space import by_last
from graphc.kernels.kernel import Loop, Partition
from graphc.ops.gather import Gather
from graphc.ops.pad import Pad
from graphc.ops.pool import MaxPool, SumPoolGrad
from graphc.ops.shape import Transpose
from graphc.ops.slicing import Slice, SliceGrad
from tests.ops.example import GRID, SIGNED, Example
from tests.ops.test_contract import OP_EXAMPLES, by_op


def inferred(example: Example) -> TensorType:
    """The type of the result."""
    return example.op.infer(example.types)


def gather_loop(example: Example, split: Partition = "none") -> Loop:
    """The op of operands in0, in1, ... to `out`."""
    types = list(example.types)
    gather = example.op.gather(types, inferred(example))
    assert gather is not None
    b = BodyBuilder()

    def read(operand: int, at: AccessMap | None, *index: Expr) -> Expr:
        name, dtype = f"in{operand}", types[operand].dtype
        return b.load(name, "row", dtype) if at is None else b.fetch(name, at, dtype, *index)

    b.store(gather.write(b, read), "out", "each")
    space = by_last(gather.shape)
    return Loop(*space, "columns", b.body(), split, places_of(gather.shape))


def operands(example: Example, n: int) -> dict[str, Array]:
    """Its buffers; the result is not written yet."""
    arrays = {f"in{i}": x for i, x in enumerate(example.operands(n))}
    result = inferred(example)
    arrays["out"] = np.full(shape_at(result.shape, n), 77).astype(result.dtype)
    return arrays


def _gathers() -> Iterator[Example]:
    for example in (*OP_EXAMPLES, *_more()):
        if example.op.gather(example.types, inferred(example)) is not None:
            yield example


def _more() -> Iterator[Example]:
    """Moves that merge dimensions, or do not; a last dimension longer than a vector."""

    def t(*shape: Dim) -> TensorType:
        return TensorType(shape, "float32")

    yield Example(Transpose((0, 2, 3, 1)), (t(N, 3, 5, 20),))
    yield Example(Transpose((2, 3, 1, 0)), (t(21, 4, 3, 2),))
    yield Example(Transpose((1, 0)), (t(19, 18),))
    yield Example(Pad(((0, 0), (1, 2), (0, 3), (2, 0)), 0.5), (t(N, 3, 4, 18),))
    yield Example(Pad(((0, 0), (1, 1), (2, 2), (0, 0))), (t(N, 5, 4, 6),))
    cuts = ((1, 1, 6, 2), (2, 0, 4, 1), (3, 2, 19, 3))
    yield Example(Slice(cuts), (t(N, 6, 5, 20),))
    yield Example(SliceGrad((N, 6, 5, 20), cuts), (Slice(cuts).infer([t(N, 6, 5, 20)]),))
    single = ((1, 2, 4, 1), (2, 1, 2, 1))  # one pixel of each line, and not the first
    yield Example(Slice(single), (t(N, 5, 3, 4),))
    yield Example(SliceGrad((N, 5, 3, 4), single), (t(N, 2, 1, 4),))
    yield Example(SliceGrad((N, 7, 4), ((1, 1, 7, 3),)), (t(N, 2, 4),))
    for dtype in ("int64", "int32", "bool"):
        x = t(N, 3, 5).with_dtype(dtype)
        yield Example(Transpose((0, 2, 1)), (x,), (2,))
        yield Example(Slice(((1, 0, 3, 2), (2, 1, 5, 1))), (x,), (2,))
        if dtype != "bool":
            yield Example(Pad(((0, 0), (1, 0), (2, 1)), 7.0), (x,), (9,))
    yield Example(Pad(((0, 0), (1, 1), (1, 0)), float("-inf")), (t(N, 3, 5),))
    out_of_bounds: tuple[str, str] = GRID, SIGNED
    yield Example(Gather(), (t(5, 2, 19), t(N, 3).with_dtype("int64")), out_of_bounds)
    yield Example(Gather(), (t(4, 3), t(40).with_dtype("int32")), out_of_bounds)
    yield Example(Gather(), (t(6, 33).with_dtype("int32"), t(N).with_dtype("uint8")), (9, 6))
    yield Example(MaxPool((2, 2), (2, 2), (1, 1)), (t(N, 6, 6, 17),))
    yield Example(SumPoolGrad((N, 6, 6, 17), (3, 3), (2, 2), (1, 1)), (t(N, 2, 2, 17),))


GATHERS = list(_gathers())
BY_OP = by_op(GATHERS)
