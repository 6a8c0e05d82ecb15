"""What ops say of where their operands' elements go, compared with their reference rules."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.op import Array
from graphc.ir.tensor_type import Dim, N, TensorType
from graphc.ops.pad import Pad
from graphc.ops.shape import Transpose
from graphc.ops.slicing import Concat, Cut, Slice, SliceGrad
from tests.ops.example import Example
from tests.ops.test_contract import OP_EXAMPLES

ROWS = 3


def t(*shape: Dim) -> TensorType:
    return TensorType(shape, "float32")


EXAMPLES = [
    *OP_EXAMPLES,
    Example(Transpose((0, 3, 1, 2)), (t(N, 2, 3, 4),)),
    Example(Slice(((1, 2, 4, 1), (2, 0, 1, 1))), (t(N, 5, 3),)),
    Example(SliceGrad((N, 5, 3), ((1, 2, 4, 1), (2, 0, 1, 1))), (t(N, 2, 1),)),
    Example(Pad(((0, 0), (1, 2), (0, 3))), (t(N, 4, 2),)),
    Example(Concat(-1), (t(N, 2, 4), t(N, 2, 1), t(N, 2, 3))),
]


def result_of(example: Example) -> tuple[list[Array], Array]:
    """The operands and the result, for some rows."""
    ins = example.operands(ROWS)
    return ins, example.op.at(ROWS).reference(ins)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.op.permutation is not None])
def test_a_permutation_is_a_transpose(example: Example) -> None:
    (x,), out = result_of(example)
    assert np.array_equal(out, x.transpose(example.op.permutation))


BOXES = [e for e in EXAMPLES if len(e.types) == 1 and e.op.box_start(e.types[0])]


@pytest.mark.parametrize("example", BOXES)
def test_a_box_is_a_part_with_zeros_around(example: Example) -> None:
    (x,), out = result_of(example)
    start = example.op.box_start(example.types[0])
    assert start is not None
    wide = np.pad(x, [(out.shape[i], out.shape[i]) for i in range(x.ndim)])
    begins = [at + size for at, size in zip(start, out.shape, strict=True)]
    box = tuple(slice(at, at + size) for at, size in zip(begins, out.shape, strict=True))
    assert np.array_equal(out, wide[box])


@pytest.mark.parametrize(
    "example", [e for e in EXAMPLES if e.op.operand_starts(e.types) is not None]
)
def test_operands_lie_where_the_op_says(example: Example) -> None:
    ins, out = result_of(example)
    starts = example.op.operand_starts(example.types)
    assert starts is not None
    wanted = np.zeros_like(out)
    for x, start in zip(ins, starts, strict=True):
        wanted[tuple(slice(at, at + size) for at, size in zip(start, x.shape, strict=True))] = x
    assert np.array_equal(out, wanted)


@pytest.mark.parametrize(
    "op", [Slice(((1, 4, 0, -1),)), Slice(((1, 0, 4, 2),)), Slice(((0, N, 2 * N, 1),))]
)
def test_what_has_gaps_or_an_open_start_is_no_box(op: Slice) -> None:
    assert op.box_start(t(2 * N, 5)) is None


@pytest.mark.parametrize("cut", [(1, -1, -1, -1), (1, 5, 0, -1), (1, 3, 4, -1), (1, 0, 6, 1)])
def test_a_slice_begins_inside_the_dimension(cut: Cut) -> None:
    """A start of -1 would be read from the end."""
    with pytest.raises(ValueError, match="does not fit a dimension of 5"):
        Slice((cut,)).infer([t(N, 5)])


def test_a_pad_with_another_value_than_zero_is_no_box() -> None:
    assert Pad(((0, 0), (1, 1)), 2.0).box_start(t(N, 3)) is None
