"""The kernel of a stack of products: where the matrices lie."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.graph import Node
from graphc.kernels.body import Body
from graphc.kernels.kernel import Gemm, Stack
from graphc.kernels.turned import dense_strides, stored_strides
from graphc.ops.shape import Transpose
from graphc.tensor_type import Shape, TensorType


@dataclass(frozen=True)
class Factor:
    """A factor: its buffer, shape, its strides where it lies in another order, and whether the
    op transposes its matrices."""

    buffer: str
    shape: Shape
    strides: Shape | None
    transposed: bool

    def lies(self, sizes: Shape) -> tuple[Shape, bool]:
        """The elements between matrices along each leading dimension, and between rows; whether
        the matrices are stored transposed."""
        strides = self.strides or dense_strides(self.shape)
        missing = len(sizes) + 2 - len(self.shape)
        apart = [0 if dim == 1 else step for dim, step in zip(self.shape, strides, strict=True)]
        *rows, column = strides[-2:]
        turned = column != 1
        pitch = column if turned else rows[0]
        return (*[0] * missing, *apart[:-2], pitch), self.transposed != turned


def stacked(result: TensorType, a: Factor, b: Factor, turned: Node | None, body: Body) -> Gemm:
    """The products a @ b, of which `turned` stores the transpose, if anything does."""
    sizes, (m, n) = result.shape[:-2], result.shape[-2:]
    inner = a.shape[-2 if a.transposed else -1]
    of_a, trans_a = a.lies(sizes)
    of_b, trans_b = b.lies(sizes)
    stack = Stack(sizes, of_a, of_b)
    if turned is not None:
        assert isinstance(turned.op, Transpose)
        out = stored_strides(turned.type.shape, turned.op.axes)[:-1]
        stack = replace(stack, turned=turned.name, out=out)
    names = (a.buffer, b.buffer)
    return Gemm(m, n, inner, *names, trans_a, trans_b, result.dtype, body, "matrices", stack)
