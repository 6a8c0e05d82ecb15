"""The cost of an instruction, and of a program, in operations and bytes.

Operations are counted as in graphc/ops/flops.py.  Bytes are those of the distinct buffers read and
of those written, as if none were in a cache; scratch does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.expr import Body, Broadcast, Step
from graphc.ir.tensor_type import dim_at
from graphc.kernels.inside import Inside
from graphc.kernels.kernel import Chain, Convolution, Gemm, Kernel, ScatterAdd
from graphc.kernels.program import Instr, Program

NO_ARITHMETIC = (
    "load",
    "fetch",
    "offset",
    "const",
    "index",
    "size",
    "product",
    "scatter_add",
    "cast",
    "philox",
)
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
    operations = products = 0
    if instr.inside is not None:
        return _cost_inside(program, instr, instr.inside, n)
    if instr.body is not None:
        operations, products = kernel_flops(instr.body, n)
    elif instr.op is not None:
        ins = [program.buffers[name].type for name in instr.ins]
        operations, products = instr.op.flops(ins, program.buffers[instr.outs[0]].type, n)
    return Cost(operations + products, _bytes(program, instr, n), products)


def _cost_inside(program: Program, instr: Instr, inside: Inside, n: int) -> Cost:
    """Return the cost of a program's runs inside an instruction.

    One after the other they find in a cache what they hand on and all read: it counts once.
    """
    times, rows = inside.runs(n)
    own = program_cost(inside.program, rows)
    if inside.at_once:
        return own
    names = (name for name in instr.buffers if name != inside.workspace)
    size = sum(program.buffers[name].type.nbytes(n) for name in names)
    return Cost(times * own.flops, size, times * own.products)


def kernel_flops(kernel: Kernel, n: int) -> tuple[int, int]:
    """Return the operations of a fused kernel's body, and those of its matrix products."""
    if isinstance(kernel, Chain):
        parts = [kernel_flops(one, n) for one in kernel.kernels]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)
    rows, columns = (dim_at(dim, n) for dim in kernel.space)
    if isinstance(kernel, Gemm):
        products = rows * dim_at(kernel.k, n)
        if isinstance(kernel, Convolution):  # offsets that meet no pixel do not count
            products = dim_at(kernel.images, n) * kernel.window.meetings * kernel.window.channels
        return _body_flops(kernel.body, rows, columns), 2 * products * columns
    added = dim_at(kernel.count, n) * columns if isinstance(kernel, ScatterAdd) else 0
    return _body_flops(kernel.body, rows, columns) + added, 0


def _body_flops(body: Body, rows: int, columns: int) -> int:
    times: dict[Broadcast, int] = {"each": rows * columns, "row": rows, "column": columns, "one": 1}
    return sum(times[_worked(body, s)] for s in body.steps if s.op not in NO_ARITHMETIC)


def _worked(body: Body, step: Step) -> Broadcast:
    """Return the broadcast kind of a reduction's argument, or of the result of another step."""
    return body.steps[step.args[0]].broadcast if step.op in ("sum", "max") else step.broadcast


def _bytes(program: Program, instr: Instr, n: int) -> int:
    names = [*dict.fromkeys(instr.ins), *dict.fromkeys(instr.outs)]
    return sum(program.buffers[name].type.nbytes(n) for name in names)
