"""The windows that the attributes of convolutions and pools describe."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.tensor_type import Shape
from graphc.onnx.call import Call
from graphc.onnx.known import NotSupported
from graphc.ops.pad import Pads
from graphc.ops.window import Sizes, reach


@dataclass(frozen=True)
class Windows:
    """The windows of a convolution or pool: a number, or a pair, for each spatial dimension."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    padding: Pads


def windows_of(call: Call, kernel: Sizes) -> Windows:
    """Return the windows of a convolution or a pool over the first operand."""
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
        return pairs(tuple(call.attribute("pads") or (0,) * 2 * rank), rank)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise NotSupported(f"auto_pad={auto!r}")
    return same(call.type(0).shape[2:], reach(kernel, dilation), stride, auto == "SAME_LOWER")


def pairs(pads: Sizes, rank: int) -> Pads:
    """Return all paddings before, then all after, as a pair for each dimension."""
    if len(pads) != 2 * rank:
        raise NotSupported(f"pads {pads} for {rank} dimensions")
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def same(space: Shape, spans: Sizes, stride: Sizes, lower: bool) -> Pads:
    """Return paddings for ceil(size / stride) windows; an odd one goes last, with `lower` first."""
    found = []
    for size, span, step in zip(space, spans, stride, strict=True):
        if not isinstance(size, int):
            raise NotSupported("an image whose size depends on the batch")
        found.append(halves(max((-(-size // step) - 1) * step + span - size, 0), lower))
    return tuple(found)


def halves(total: int, lower: bool) -> tuple[int, int]:
    """Return padding in two halves; the larger is the second, or the first if `lower`."""
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)
