"""Convolutions as kernels of their own, compiled and run on guarded arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.ir import Module
from graphc.ir.expr import BodyBuilder
from graphc.ir.forms import Window
from graphc.ir.forms import WindowProduct as WindowForm
from graphc.ir.tensor_type import N, TensorType, shape_at
from graphc.kernels.iteration_space import by_last
from graphc.kernels.kernel import Convolution as ConvolutionKernel
from graphc.kernels.kernel import Gemm, Partition
from graphc.ops.conv import Conv, ConvDw, ConvDx, Convolution
from tests.backends.native.compiled_function import Compiled
from tests.backends.native.gemm_function import Array, Product, Write, store_product


@dataclass(frozen=True)
class Spec:
    """A convolution op of operands a and b."""

    op: Convolution
    a: TensorType
    b: TensorType
    partition: Partition = "rows"
    write: Write = store_product
    window: Window | None = None
    """The window in place of the op's own, if any."""

    @property
    def result(self) -> TensorType:
        return self.op.infer([self.a, self.b])

    def kernel(self) -> Gemm:
        """The kernel that the op is by itself."""
        of = self.op.product([self.a, self.b])
        assert of is not None
        builder = BodyBuilder()
        self.write(builder, builder.product(self.a.dtype))
        (m, n), sides = by_last(self.result.shape), (of.trans_a, of.trans_b)
        fields = (m, n, of.inner, "a", "b", *sides, self.a.dtype, builder.body(), self.partition)
        if not isinstance(of, WindowForm):
            return Gemm(*fields)
        return ConvolutionKernel(*fields, window=self.window or of.window)

    def operands(self, n: int, seed: int = 0) -> dict[str, Array]:
        """Random a and b, and a result that is not written yet."""
        rng = np.random.default_rng(seed)
        types = {"a": self.a, "b": self.b}
        found = {k: rng.standard_normal(shape_at(t.shape, n)) for k, t in types.items()}
        found["c"] = np.full(shape_at(self.result.shape, n), np.nan)
        return {name: array.astype(self.a.dtype) for name, array in found.items()}


class WindowProduct(Product):
    """A compiled convolution."""

    def __init__(self, spec: Spec, bits: int = 512, packed: bool = False) -> None:
        kernel, module = spec.kernel(), Module()
        assert isinstance(kernel.n, int)
        each = {s.buffer for s in kernel.body.steps if s.op == "load" and s.broadcast == "each"}
        each |= {store.buffer for store in kernel.body.stores}
        pitch = dict.fromkeys(each, kernel.n) | pitches(kernel)
        self.kernel, self.bits, self.packed, self.capacity = kernel, bits, packed, 1
        self.code = emit_gemm(module, kernel, pitch, bits, packed=packed)
        self._compiled = Compiled(self.exported(module, self.code), "entry")


def pitches(kernel: Gemm) -> Mapping[str, int]:
    """The columns of the factors that are stored as matrices."""
    found = kernel.factor_columns.items()
    return {name: columns for name, columns in found if isinstance(columns, int)}


def specs(
    x: Sequence[int], w: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    dtype: str = "float32", partition: Partition = "rows", groups: int = 1,
) -> list[Spec]:  # fmt: skip
    """A convolution of images (N, *x) with a kernel w, and its two gradients."""
    how = tuple(stride), tuple(dilation), groups
    images, kernel = TensorType((N, *x), dtype), TensorType(tuple(w), dtype)
    y = Conv(*how).infer([images, kernel])
    return [
        Spec(Conv(*how), images, kernel, partition),
        Spec(ConvDx(images.shape, *how), y, kernel, partition),
        Spec(ConvDw(kernel.shape, *how), images, y, partition),
    ]
