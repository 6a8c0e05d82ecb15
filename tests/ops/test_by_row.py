"""What ops say of rows, against their reference rules: a row alone is that row of the batch."""

from graphc.ir.op import Array
from graphc.ir.rows import keeps_rows
from graphc.ir.tensor_type import TensorType
from graphc.runtime.row_axis import rows_of
from tests.ops.example import Example
from tests.ops.examples import EXAMPLES
from tests.ops.test_contract import by_op, close
from tests.together import together

ROWS = 4
KEEPING = [e for e in EXAMPLES if keeps_rows(e.op, e.types, e.op.infer(e.types))]


def row(arrays: list[Array], types: tuple[TensorType, ...], i: int) -> list[Array]:
    return [rows_of(x, type, slice(i, i + 1)) for x, type in zip(arrays, types, strict=True)]


@together("examples", by_op(KEEPING).values())
def test_a_row_does_not_depend_on_the_others(examples: list[Example]) -> None:
    for example in examples:
        ins, result = example.operands(ROWS), example.op.infer(example.types)
        if not result.batched:
            continue
        whole = example.concrete(ROWS).reference(ins)
        for i in range(ROWS):
            alone = example.concrete(1).reference(row(ins, example.types, i))
            assert close(alone, rows_of(whole, result, slice(i, i + 1))), f"{example} at row {i}"


def test_ops_of_images_say_that_they_keep_rows() -> None:
    assert {"add", "conv", "max_pool", "matmul", "concat", "softmax"} <= by_op(KEEPING).keys()
