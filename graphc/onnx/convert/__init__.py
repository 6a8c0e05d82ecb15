"""The converters: one small function for each ONNX op, grouped by family."""

from __future__ import annotations

from collections.abc import Callable

from graphc.onnx.call import Call, Result
from graphc.onnx.convert import (
    arrange,
    control,
    conv,
    einsum,
    elementwise,
    fourier,
    index,
    loss,
    norm,
    optimizer,
    product,
    quantize,
    recurrent,
    reduce,
    resize,
    sequence,
    shape,
)

FAMILIES = (
    *(elementwise, reduce, shape, arrange, index, product, einsum, conv, norm, loss),
    *(resize, fourier, quantize, recurrent, sequence, control),
)

CONVERTERS: dict[tuple[str, str], Callable[[Call], Result]] = {
    **{("", op): make for family in FAMILIES for op, make in family.CONVERTERS.items()},
    **{("ai.onnx.preview.training", op): make for op, make in optimizer.CONVERTERS.items()},
}
"""The converters by domain and op; each raises NotSupported if graphc cannot express the node."""
