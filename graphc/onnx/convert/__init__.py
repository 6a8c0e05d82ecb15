"""The converters from nodes of ONNX to values of a net, one for each op, by family."""

from __future__ import annotations

from graphc.onnx.call import Converter
from graphc.onnx.convert import (
    arrange,
    axes,
    conv,
    elementwise,
    linear_maps,
    products,
    training,
    unrolled,
)

FAMILIES = (*(elementwise, axes, arrange, products, conv, training, linear_maps, unrolled),)

CONVERTERS: dict[tuple[str, str], Converter] = {
    **{("", op): make for family in FAMILIES for op, make in family.CONVERTERS.items()},
    **{("ai.onnx.preview.training", op): make for op, make in training.PREVIEW.items()},
}
"""The converters by domain and op; each raises NotSupported if graphc cannot express the node."""
