"""Converters of convolution and pooling of images (N, C, d1, ..., dk)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.onnx.call import Call, Converter, NotSupported, Result
from graphc.ops.pad import Pads
from graphc.ops.pool import MaxPoolIndex
from graphc.ops.pool_layer import AvgPoolLayer, MaxPoolLayer
from graphc.ops.window import Sizes, reach, same_pads


@dataclass(frozen=True)
class Windows:
    """The windows of a convolution or pool: a number, or a pair, for each spatial dimension."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    padding: Pads


def _windows(call: Call, kernel: Sizes | None = None) -> Windows:
    """Return the windows of a convolution, or of a pool, over the first operand."""
    kernel = tuple(call.required("kernel_shape")) if kernel is None else kernel
    rank = len(kernel)
    stride = tuple(call.attribute("strides") or (1,) * rank)
    dilation = tuple(call.attribute("dilations") or (1,) * rank)
    if len(stride) != rank or len(dilation) != rank:
        raise NotSupported(f"strides {stride} and dilations {dilation} for {rank} dimensions")
    return Windows(kernel, stride, dilation, _padding(call, kernel, stride, dilation))


def _padding(call: Call, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Pads:
    rank, auto = len(kernel), call.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        return ((0, 0),) * rank
    if auto == "NOTSET":
        return _pairs(tuple(call.attribute("pads") or (0,) * 2 * rank), rank)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise NotSupported(f"auto_pad={auto!r}")
    pads = same_pads(call.op, call.type(0).shape[2:], kernel, stride, dilation)
    return pads if auto == "SAME_UPPER" else tuple(pair[::-1] for pair in pads)


def _pairs(pads: Sizes, rank: int) -> Pads:
    """Return all paddings before, then all after, as a pair for each dimension."""
    if len(pads) != 2 * rank:
        raise NotSupported(f"pads {pads} for {rank} dimensions")
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def _kernel_of(weight: Value, call: Call) -> Sizes:
    sizes = tuple(size for size in weight.shape[2:] if isinstance(size, int))
    if tuple(call.attribute("kernel_shape", sizes)) != sizes:
        raise NotSupported(f"kernel_shape={call.attribute('kernel_shape')}, weights have {sizes}")
    return sizes


def convolution(call: Call, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """Return the convolution that the attributes of a node describe."""
    w = _windows(call, _kernel_of(weight, call))
    groups = call.attribute("group", 1)
    return gc.conv(x, weight, bias, w.stride, padding=w.padding, dilation=w.dilation, groups=groups)


def _conv_transpose(call: Call) -> Value:
    x, weight = call.value(0), call.value(1)
    kernel = _kernel_of(weight, call)
    rank = len(kernel)
    stride = tuple(call.attribute("strides") or (1,) * rank)
    dilation = tuple(call.attribute("dilations") or (1,) * rank)
    more = tuple(call.attribute("output_padding") or (0,) * rank)
    spans = reach(kernel, dilation)
    sizes = tuple(size for size in x.shape[2:] if isinstance(size, int))
    padding = _spread_padding(call, sizes, stride, spans, more)
    return gc.conv_transpose(
        x,
        weight,
        call.optional(2),
        stride,
        padding=[(max(a, 0), max(b, 0)) for a, b in padding],
        # Cutting off a negative part at the end makes the result longer, as output padding does.
        output_padding=[m + max(-b, 0) for m, (_, b) in zip(more, padding, strict=True)],
        dilation=dilation,
        groups=call.attribute("group", 1),
    )


def _spread_padding(call: Call, sizes: Sizes, stride: Sizes, spans: Sizes, more: Sizes) -> Pads:
    """Return the padding to cut off: as the node gives it, or as its output size requires."""
    rank, auto = len(sizes), call.attribute("auto_pad", "NOTSET")
    wanted = call.attribute("output_shape")
    if wanted is not None:
        # Some models list the batch and the channels, too.
        wanted = tuple(wanted)[-rank:]
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(size * step for size, step in zip(sizes, stride, strict=True))
    elif auto == "VALID":
        return ((0, 0),) * rank
    else:
        return _pairs(tuple(call.attribute("pads") or (0,) * 2 * rank), rank)
    totals = [
        step * (size - 1) + extra + span - out
        for step, size, extra, span, out in zip(stride, sizes, more, spans, wanted, strict=True)
    ]
    halves = [(total // 2, total - total // 2) for total in totals]  # the larger one last
    return tuple(halves if auto == "SAME_UPPER" else [pair[::-1] for pair in halves])


def _max_pool(call: Call) -> Result:
    x, w = call.value(0), _windows(call)
    layer = MaxPoolLayer(
        w.kernel, w.stride, w.padding, w.dilation, bool(call.attribute("ceil_mode", 0))
    )
    if not x.type.is_float:  # floats hold all numbers of 8 bits
        return [gc.cast(gc.apply(layer, gc.cast(x, "float32")), x.dtype)]
    largest = gc.apply(layer, x)
    return [largest, _places(call, x, layer)] if call.is_read(1) else [largest]


def _places(call: Call, x: Value, layer: MaxPoolLayer) -> Value:
    """Return the position of each window's maximum as a flat index into all of x."""
    n, channels, *space = (size for size in x.shape if isinstance(size, int))
    if len(space) != x.type.rank - 2:
        raise NotSupported("places in a batch of any size")
    how = layer.kernel, layer.stride, layer.dilation
    offset = gc.apply(MaxPoolIndex(*how), layer.padded(x, f"{call.free_name()}.places"))
    out = tuple(size for size in offset.shape[1:-1] if isinstance(size, int))
    order = space if not call.attribute("storage_order", 0) else space[::-1]
    spend_array(2 * len(space) * (prod(layer.kernel) + prod(out)) + n * channels)
    strides = np.array([prod(order[i + 1 :]) for i in range(len(order))])
    if call.attribute("storage_order", 0):
        strides = strides[::-1]
    kernel = np.indices(layer.kernel).reshape(len(space), -1).T * np.array(layer.dilation)
    before = np.array([pair[0] for pair in layer.padding])
    first = np.moveaxis(np.indices(out), 0, -1) * np.array(layer.stride) - before
    pixel = gc.gather(call.constant(kernel @ strides), offset) + call.constant(
        (first @ strides)[..., None]
    )
    moved = gc.transpose(pixel, (0, x.type.rank - 1, *range(1, x.type.rank - 1)))
    maps = np.arange(n * channels).reshape(n, channels, *(1,) * len(space)) * prod(space)
    return moved + call.constant(maps)


def _averaged(call: Call, x: Value, include: bool) -> Value:
    """Return the mean of each window."""
    w, ceil = _windows(call), bool(call.attribute("ceil_mode", 0))
    layer = AvgPoolLayer(w.kernel, w.stride, w.padding, w.dilation, ceil, include)
    return gc.apply(layer, x)


def _powers(call: Call) -> tuple[Value, float]:
    """Return the p-th powers of the absolute values, and p."""
    x, p = call.value(0), call.attribute("p", 2)
    return (x * x if p == 2 else gc.power(gc.abs(x), p)), p


def _lp_pool(call: Call) -> Value:
    """Return the p-norm of each window, from the mean of p-th powers that counts padded zeros."""
    powers, p = _powers(call)
    return gc.power(_averaged(call, powers, True) * prod(_windows(call).kernel), 1 / p)


def _global_lp_pool(call: Call) -> Value:
    powers, p = _powers(call)
    return gc.power(gc.sum(powers, tuple(range(2, powers.type.rank)), keepdims=True), 1 / p)


def _lrn(call: Call) -> Value:
    """Return local response normalisation, x / (k + a/n * squares)^b.

    The squares are of n neighbouring channels (A. Krizhevsky, I. Sutskever, G. Hinton, NIPS 2012).
    """
    x, size = call.value(0), call.required("size")
    n, channels, *space = x.shape
    pixels = prod(side for side in space if isinstance(side, int))
    before = (size - 1) // 2
    around = (before, size - 1 - before), (0, 0)
    means = AvgPoolLayer((size, 1), (1, 1), around, (1, 1), count_include_pad=True)
    squares = gc.apply(means, gc.reshape(x * x, (n, 1, channels, pixels)))
    scale = gc.reshape(squares, x.shape) * call.attribute("alpha", 1e-4)
    return x * gc.power(scale + call.attribute("bias", 1.0), -call.attribute("beta", 0.75))


CONVERTERS: dict[str, Converter] = {
    "AveragePool": lambda call: _averaged(
        call, call.value(0), bool(call.attribute("count_include_pad", 0))
    ),
    "Conv": lambda call: convolution(call, call.value(0), call.value(1), call.optional(2)),
    "ConvTranspose": _conv_transpose,
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": lambda call: gc.global_max_pool(call.value(0)),
    "LRN": _lrn,
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
}
