"""The cost of an instruction: floating-point operations, and bytes read and written.

The counts are those of the mathematics, not of an implementation.  A multiply-add is two
operations; any other function of an element, whether exp or max, is one.  Bytes are those of the
distinct buffers read and of those written, as if none were in a cache; scratch does not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from graphc.ir.op import Op
from graphc.ir.plan import Instr, Program
from graphc.ir.tensor_type import TensorType, dim_at, shape_at
from graphc.kernels.body import Body, Span, Step
from graphc.kernels.kernel import Gemm, Kernel, space
from graphc.ops.conv import Convolution
from graphc.ops.pool import Pooling

PRODUCTS = {"affine": 1, "affine_relu": 2, "matmul": 0, "matmul_relu_grad": 1}
"""The matrix products, and their further operations on each element of the result."""

OPERATIONS = {
    "adam_mean": 3,
    "adam_square": 4,
    "adam_step": 6,
    "batchnorm_dgamma": 8,
    "batchnorm_dx": 12,
    "batchnorm_train": 8,
    "log_softmax": 5,
    "momentum": 2,
    "nesterov_step": 4,
    "normalize": 4,
    "normalize_dgamma": 4,
    "normalize_dx": 7,
    "sgd_step": 2,
    "sigmoid": 3,
    "softmax": 4,
    "softmax_rows": 4,
    "softmax_rows_grad": 6,
    "square_sum": 2,
    "svm_rows": 4,
    "svm_rows_grad": 4,
}
"""Operations for each element of the largest operand or result; other ops have one."""

MOVES = (
    "after",
    "broadcast_to",
    "cast",
    "cleared",
    "concat",
    "copy",
    "gather",
    "gather_elements",
    "max_pool_pick",
    "mean_grad",
    "one_hot",
    "pad",
    "pick",
    "reshape",
    "slice",
    "slice_grad",
    "stop_gradient",
    "transpose",
)
"""The ops that compute nothing."""

NO_ARITHMETIC = ("load", "const", "index", "size", "product", "added", "cast", "philox")
"""Steps of a fused kernel that are not floating-point operations of its body."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations and bytes; `products` are the operations inside matrix products alone."""

    flops: int = 0
    bytes: int = 0
    products: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops, self.bytes + other.bytes, self.products + other.products
        )


def program_cost(program: Program, n: int) -> Cost:
    """Return the sum over all instructions for a batch of `n` rows."""
    return sum((cost(program, instr, n) for instr in program.instrs), Cost())


def cost(program: Program, instr: Instr, n: int) -> Cost:
    """Return the cost of an instruction for a batch of `n` rows."""
    if instr.body is not None:
        operations, products = kernel_flops(instr.body, n)
        return Cost(operations + products, _bytes(program, instr, n), products)
    if instr.op is None:
        return Cost(bytes=_bytes(program, instr, n))
    operations, products = _member_flops(program, instr, n)
    return Cost(operations + products, _bytes(program, instr, n), products)


def kernel_flops(kernel: Kernel, n: int) -> tuple[int, int]:
    """Return the operations of a fused kernel's body, and those of its matrix product."""
    if isinstance(kernel, Gemm):
        rows, columns, inner = (dim_at(d, n) for d in (*space(kernel), kernel.k))
        products, window = rows * inner, kernel.window
        if window is not None:
            images = products // (window.count * window.depth)
            products = images * window.meetings * window.channels
        return _body_flops(kernel.body, rows, columns), 2 * products * columns
    rows, columns = dim_at(kernel.rows, n), dim_at(kernel.columns, n)
    added = 0 if kernel.added is None else dim_at(kernel.added.count, n) * columns
    return _body_flops(kernel.body, rows, columns) + added, 0


def _body_flops(body: Body, rows: int, columns: int) -> int:
    times: dict[Span, int] = {"each": rows * columns, "row": rows, "column": columns, "one": 1}
    return sum(times[_worked(body, s)] for s in body.steps if s.op not in NO_ARITHMETIC)


def _worked(body: Body, step: Step) -> Span:
    """Return the broadcast kind of a reduction's argument, or of the result of another step."""
    return body.steps[step.args[0]].span if step.op in ("sum", "max") else step.span


def _member_flops(program: Program, instr: Instr, n: int) -> tuple[int, int]:
    """Return a NumPy call's operations and those of its products, over all nodes it computes."""
    assert instr.op is not None
    ins = [program.buffers[name].type for name in instr.ins]
    return op_flops(instr.op, ins, program.buffers[instr.outs[0]].type, n)


def op_flops(op: Op, ins: list[TensorType], out: TensorType, n: int) -> tuple[int, int]:
    """Return the operations of an op besides matrix products, and those of its matrix product."""
    size = _size(out, n)
    if op.name in PRODUCTS:
        axis = -1 if getattr(op, "trans_b", False) else -2
        inner = shape_at(ins[1].shape, n)[axis]
        return PRODUCTS[op.name] * size, 2 * size * inner
    if isinstance(op, Convolution):
        return 0, 2 * _multiplications(op, ins, out, n)
    if isinstance(op, Pooling) and op.name not in MOVES:
        places = min(_size(type, n) for type in (*ins, out))
        return (prod(op.kernel) - ("grad" not in op.name)) * places, 0
    if op.name in MOVES:
        return 0, 0
    largest = max([size, *(_size(type, n) for type in ins)])
    return OPERATIONS.get(op.name, 1) * largest, 0


def _multiplications(op: Convolution, ins: list[TensorType], out: TensorType, n: int) -> int:
    """Return the products in a convolution: each number of y sums as many as a unit has weights."""
    w = {"conv": ins[1], "conv_dx": ins[1], "conv_dw": out}[op.name]
    y = {"conv": out, "conv_dx": ins[0], "conv_dw": ins[1]}[op.name]
    return _size(y, n) * prod(shape_at(w.shape[:-1], n))


def _bytes(program: Program, instr: Instr, n: int) -> int:
    return _read_or_written(program, instr.ins, n) + _read_or_written(program, instr.outs, n)


def _read_or_written(program: Program, names: Iterable[str], n: int) -> int:
    return sum(program.buffers[name].type.nbytes(n) for name in dict.fromkeys(names))


def _size(type: TensorType, n: int) -> int:
    return prod(shape_at(type.shape, n))
