"""Convolution of images with channels first, by weights laid out as in PyTorch and ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphc.base.arguments import checked_whole
from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import Shape, TensorType
from graphc.ops.apply import with_attributes
from graphc.ops.conv import Conv, ConvDx
from graphc.ops.elementwise import add
from graphc.ops.pad import Pad, Pads, pad
from graphc.ops.shape import (
    channels_first,
    channels_last,
    first,
    first_array,
    last,
    last_array,
    pixels,
    reshape,
    transpose,
)
from graphc.ops.slicing import slice_
from graphc.ops.window import SAME, Sizes, pads, reach, same_pads, sizes

__all__ = ["conv", "conv_transpose"]


class ConvolutionLayer(Layer, base=True):
    """The base of both layers: x (n, c, *space), weight of x's rank, bias (channels of y,)."""

    roles = ("x", "weight", "bias")
    optional = 1
    stride: Sizes
    padding: Pads
    dilation: Sizes
    groups: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return y's type; raise ValueError if ranks, channels, weight or bias do not fit."""
        x, weight, *bias = ins
        rank = len(self.stride) + 2
        if x.rank != rank or weight.rank != rank or not x.is_float:
            raise ValueError(
                f"x is {x}, weight is {weight}: with {rank - 2} dimensions of space both have "
                f"rank {rank}"
            )
        if weight.batched:
            raise ValueError(f"weight is {weight}, it may not depend on the batch")
        y = self.result(x, weight)
        if bias and bias[0] != x.with_shape(y.shape[1:2]):
            raise ValueError(f"bias is {bias[0]}, the result has {y.shape[1]} channels")
        return y

    def result(self, x: TensorType, weight: TensorType) -> TensorType:
        """Return the type of y; raise ValueError if x and weight do not fit."""
        raise NotImplementedError

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        filters = ins[1].transpose(*range(2, ins[1].ndim), 1, 0)
        y = self.reference_last(last_array(ins[0]), filters)
        return first_array(y + ins[2] if len(ins) == 3 else y)

    def reference_last(self, x: Array, filters: Array) -> Array:
        """Compute y without the bias, from x and to y with channels last."""
        raise NotImplementedError

    def finished(self, y: Value, ins: Sequence[Value], name: str) -> Value:
        """Add the bias to y, which has its channels last, and transpose to channels first."""
        if len(ins) == 3:
            rows = add(pixels(y), ins[2], name=f"{name}.biased")
            y = reshape(rows, y.shape)
        return channels_first(y, name=name)


def _space_first_type(weight: TensorType) -> TensorType:
    """Return the type (*kernel, b, a) for weights (a, b, *kernel)."""
    a, b, *kernel = weight.shape
    return weight.with_shape((*kernel, b, a))


def _space_first(weight: Value, name: str) -> Value:
    """Return weights (a, b, *kernel) as (*kernel, b, a)."""
    return transpose(weight, (*range(2, weight.type.rank), 1, 0), name=f"{name}.kernel")


@dataclass(frozen=True)
class ConvLayer(ConvolutionLayer):
    """y (n, o, *out) of x (n, c, *space) and weight (o, c / groups, *kernel)."""

    name = "conv"
    stride: Sizes
    padding: Pads
    dilation: Sizes
    groups: int = 1

    @property
    def op(self) -> Conv:
        """The convolution of the padded, channels-last image."""
        return Conv(self.stride, self.dilation, self.groups)

    @property
    def pad(self) -> Pad:
        """The op that pads the channels-last image with zeros."""
        return Pad(((0, 0), *self.padding, (0, 0)))

    def result(self, x: TensorType, weight: TensorType) -> TensorType:
        return first(self.op.infer([self.pad.infer([last(x)]), _space_first_type(weight)]))

    def reference_last(self, x: Array, filters: Array) -> Array:
        return self.op.reference([self.pad.reference([x]), filters])

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x = channels_last(ins[0], name=f"{name}.channels_last")
        if any(map(any, self.padding)):
            x = pad(x, self.pad.pads, name=f"{name}.padded")
        filters = _space_first(ins[1], name)
        return self.finished(b.apply(self.op, x, filters, name=f"{name}.conv"), ins, name)


@dataclass(frozen=True)
class ConvTransposeLayer(ConvolutionLayer):
    """y (n, o, *out) of x (n, c, *space) and weight (c, o / groups, *kernel).

    Each pixel of x is scattered to as many of y as the filter has.  `padding` is cut off, and
    `more` pixels or zeros added at the end.  out = (space - 1) * stride + span - padding + more.
    """

    name = "conv_transpose"
    stride: Sizes
    padding: Pads
    dilation: Sizes
    more: Sizes
    groups: int = 1

    def op(self, x: Shape, filters: Shape) -> ConvDx:
        """Return the transposed convolution of shapes with channels last, before padding is cut."""
        n, *space, c = x
        *window, part, given = (size for size in filters if isinstance(size, int))
        if given != c:
            raise ValueError(f"x has {c} channels, weight takes {given}")
        sizes = []
        spans = reach(window, self.dilation)
        for size, stride, span in zip(space, self.stride, spans, strict=True):
            if not isinstance(size, int):
                raise ValueError("an image that depends on the batch has no fixed size")
            sizes.append((size - 1) * stride + span)
        shape = (n, *sizes, part * self.groups)
        return ConvDx(shape, self.stride, self.dilation, self.groups)

    def ends(self) -> tuple[Pads, tuple[slice, ...]]:
        """Return the pads to add at the end, and the slices that cut the padding off."""
        pairs = list(zip(self.padding, self.more, strict=True))
        added = tuple((0, max(0, more - behind)) for (_, behind), more in pairs)
        cuts = tuple(
            slice(before, -(behind - more) if behind > more else None)
            for (before, behind), more in pairs
        )
        return ((0, 0), *added, (0, 0)), (slice(None), *cuts)

    def result(self, x: TensorType, weight: TensorType) -> TensorType:
        """Return the type of y after the cut; raise ValueError if the padding leaves nothing."""
        images, filters = last(x), _space_first_type(weight)
        n, *space, channels = self.op(images.shape, filters.shape).infer([images, filters]).shape
        sizes = []
        for size, (before, behind), more in zip(space, self.padding, self.more, strict=True):
            assert isinstance(size, int)
            if before + behind >= size + more:
                raise ValueError(f"padding {before} and {behind} leaves nothing of {size} pixels")
            sizes.append(size - before - behind + more)
        return x.with_shape((n, channels, *sizes))

    def reference_last(self, x: Array, filters: Array) -> Array:
        added, cuts = self.ends()
        whole = self.op(x.shape, filters.shape).reference([x, filters])
        return Pad(added).reference([whole])[cuts]

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        """Build the scatter with channels last, then what `ends` adds, cuts off, and the bias."""
        x = channels_last(ins[0], name=f"{name}.channels_last")
        filters = _space_first(ins[1], name)
        y = b.apply(self.op(x.shape, filters.shape), x, filters, name=f"{name}.spread")
        added, cuts = self.ends()
        if any(map(any, added)):
            y = pad(y, added, name=f"{name}.padded")
        if any(cut != slice(0, None) for cut in cuts[1:]):
            y = slice_(y, cuts, name=f"{name}.cut")
        return self.finished(y, ins, name)


_convolution = partial(
    with_attributes,
    also='w = net.parameter("w", (16, 3, 4, 4))',
    x="Images: floats (N, c, *space).",
    b="A number (o,) to add to each channel of the result.",
    stride="A whole number, or one for each dimension of space.",
    dilation="The distance of a filter's pixels, in the same form.",
    groups="The number of parts of the channels; each is convolved by itself.",
    name="The name of the layer.",
    raises="If channels or sizes do not fit.",
)


@_convolution(
    example=("(N, 3, 8, 8)", 'x, w, padding="same"', "(N, 16, 8, 8)"),
    w="Filters (o, c / groups, *kernel).",
    padding='A whole number, one for each dimension, pairs (before, after), or "same": the\n'
    "result has size / stride pixels, rounded up.",
    returns="Of the shape (N, o, *out), with out = (space + padding before and after\n"
    "- dilation * (kernel - 1) - 1) // stride + 1.",
)
def conv(
    x: Value,
    w: Value,
    b: Value | None = None,
    stride: Any = 1,
    *,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    name: str | None = None,
) -> Value:
    """Return the convolution of x with filters w that are given.

    As in PyTorch and ONNX the filter is not flipped.  There are 1 to 3 dimensions of space.
    """
    x, w = as_value("conv", x), as_value("conv", w)
    space = _dimensions(ConvLayer((), (), ()), x, w)
    steps = sizes("conv", "stride", stride, space), sizes("conv", "dilation", dilation, space)
    pairs = _pads(x.shape[2:], w.shape[2:], steps, padding)
    layer = ConvLayer(steps[0], pairs, steps[1], checked_whole("conv: groups", groups))
    return x.builder.apply(layer, x, w, *(() if b is None else (b,)), name=name)


def _pads(space: Shape, filter_size: Shape, steps: tuple[Sizes, Sizes], padding: Any) -> Pads:
    """Return the padding in pairs; `steps` are the stride and the dilation."""
    if not isinstance(padding, str):
        return pads("conv", padding, len(space))
    if padding != SAME:
        raise GraphError(
            f"conv: padding is {padding!r}, as text it can only be 'same'",
            hint="for what other libraries call 'valid', write padding=0",
        )
    window = tuple(size for size in filter_size if isinstance(size, int))
    return same_pads("conv", space, window, *steps)


@_convolution(
    example=("(N, 16, 4, 4)", "x, w, stride=2", "(N, 3, 10, 10)"),
    w="Filters (c, o / groups, *kernel).",
    padding="The pixels to cut off: a whole number, one for each dimension, or pairs (before, "
    "after).",
    output_padding="The pixels to add at the end of each dimension: a whole number, or one for "
    "each.",
    returns="Of the shape (N, o, *out), with out = (space - 1) * stride - padding before and\n"
    "after + dilation * (kernel - 1) + 1 + output_padding.",
)
def conv_transpose(
    x: Value,
    w: Value,
    b: Value | None = None,
    stride: Any = 1,
    *,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    name: str | None = None,
) -> Value:
    """Return the transposed convolution of x with filters w that are given."""
    op = "conv_transpose"
    x, w = as_value(op, x), as_value(op, w)
    space = _dimensions(ConvTransposeLayer((), (), (), ()), x, w)
    layer = ConvTransposeLayer(
        sizes(op, "stride", stride, space),
        pads(op, padding, space),
        sizes(op, "dilation", dilation, space),
        sizes(op, "output_padding", output_padding, space, least=0),
        checked_whole(f"{op}: groups", groups),
    )
    return x.builder.apply(layer, x, w, *(() if b is None else (b,)), name=name)


def _dimensions(layer: ConvolutionLayer, x: Value, w: Value) -> int:
    """Return how many dimensions of space images have; raise GraphError if w is not of theirs."""
    space = x.type.rank - 2
    if not 1 <= space <= 3 or w.type.rank != x.type.rank:
        message = (
            f"x is {x.type}, w is {w.type}, {layer.name} takes x (N, channels, *space) and w of "
            "the same rank\nwith 1, 2 or 3 dimensions of space"
        )
        raise x.builder.error(layer, message, (x, w))
    return space
