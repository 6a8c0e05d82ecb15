"""The kernel of a stack of products: the strides of its matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir.graph import Node
from graphc.ir.tensor_type import Dim, Shape, TensorType
from graphc.kernels.body import Body
from graphc.kernels.kernel import Gemm, Split, Stack
from graphc.kernels.turned import dense_strides, stored_strides
from graphc.ops.shape import Transpose


@dataclass(frozen=True)
class Factor:
    """A factor of a product: its buffer, its shape, its strides and its transposition.

    `strides` are None if it is contiguous; `transposed` says whether the op transposes its
    matrices.
    """

    buffer: str
    shape: Shape
    strides: Shape | None
    transposed: bool

    def lies(self, sizes: Shape) -> tuple[Shape, bool]:
        """Return the strides of the matrices, and whether they are stored transposed.

        The strides are the elements between matrices in each leading dimension, and between rows.
        """
        strides = self.strides or dense_strides(self.shape)
        missing = len(sizes) + 2 - len(self.shape)
        apart = [0 if dim == 1 else step for dim, step in zip(self.shape, strides, strict=True)]
        *rows, column = strides[-2:]
        turned = column != 1
        pitch = column if turned else rows[0]
        return (*[0] * missing, *apart[:-2], pitch), self.transposed != turned


def stacked(
    result: TensorType, inner: Dim, a: Factor, b: Factor, turned: Node | None, body: Body
) -> Gemm:
    """Return the kernel of a @ b; the node `turned`, if any, stores the transpose."""
    sizes, (m, n) = result.shape[:-2], result.shape[-2:]
    of_a, trans_a = a.lies(sizes)
    of_b, trans_b = b.lies(sizes)
    stack = Stack(sizes, of_a, of_b)
    if turned is not None:
        assert isinstance(turned.op, Transpose)
        out = stored_strides(turned.type.shape, turned.op.axes)[:-1]
        stack = replace(stack, turned=turned.name, out=out)
    names = (a.buffer, b.buffer)
    split: Split = "matrices"
    dtype = result.dtype
    return Gemm(m, n, inner, *names, trans_a, trans_b, dtype, body, split, stack=stack)
