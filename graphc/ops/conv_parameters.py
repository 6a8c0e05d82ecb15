"""Convolution layers that declare their parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from graphc.base.arguments import checked_whole, takes
from graphc.base.errors import GraphError
from graphc.ir.build import Value, as_value, misfit
from graphc.ir.init import Zeros
from graphc.ops.apply import with_attributes
from graphc.ops.conv_layer import conv, conv_transpose
from graphc.ops.source import parameter
from graphc.ops.window import dimensions, sizes

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"]

_CONV = takes(
    "gc.conv2d(x, channels, kernel): the input channels are read off x",
    filters="it is channels",
    out_channels="it is channels",
    in_channels="it is read off x: gc.conv2d(x, channels, kernel)",
    kernel_size="it is kernel",
    strides="it is stride",
    dilation_rate="it is dilation",
    use_bias="it is bias",
    activation="it is a separate function: gc.relu(gc.conv2d(x, 8, 3))",
    data_format="channels come first: (N, channels, height, width)",
)


_of_trained = partial(
    with_attributes,
    channels="The channels of the result.",
    kernel="The size of a filter: a whole number, or one for each dimension of space.",
    groups="As of `conv`.",
    bias="True to add a trained `<node>.bias` (channels,).",
    init="The initial values of `<node>.weight`: an initializer, its name, a number or an array.",
    name="The name of the layer.",
    returns="Of the shape (N, channels, *out).",
    raises="If channels or sizes do not fit.",
)
_of_trained_transposed = partial(_of_trained, groups="As of `conv_transpose`.")


@_CONV
@_of_trained(
    example=("(N, 3, 8)", "x, 16, 3", "(N, 16, 6)"),
    x="Floats (N, c, length).",
)
def conv1d(
    x: Value,
    channels: int,
    kernel: Any,
    stride: Any = 1,
    *,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    init: Any = "he",
    name: str | None = None,
) -> Value:
    """Return the convolution of x (N, c, length) by trained weights."""
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _trained(conv, 1, x, channels, kernel, how, bias, init, name)


@_CONV
@_of_trained(
    example=("(N, 3, 8, 8)", 'x, 16, 3, padding="same"', "(N, 16, 8, 8)"),
    x="Floats (N, c, height, width).",
)
def conv2d(
    x: Value,
    channels: int,
    kernel: Any,
    stride: Any = 1,
    *,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    init: Any = "he",
    name: str | None = None,
) -> Value:
    """Return the convolution of images x by trained weights.

    `<node>.weight` (channels, c / groups, *kernel) and `<node>.bias` (channels,) are as in PyTorch.
    """
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _trained(conv, 2, x, channels, kernel, how, bias, init, name)


@_CONV
@_of_trained(
    example=("(N, 3, 8, 8, 8)", "x, 16, 3", "(N, 16, 6, 6, 6)"),
    x="Floats (N, c, depth, height, width).",
)
def conv3d(
    x: Value,
    channels: int,
    kernel: Any,
    stride: Any = 1,
    *,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    init: Any = "he",
    name: str | None = None,
) -> Value:
    """Return the convolution of x (N, c, depth, height, width) by trained weights."""
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _trained(conv, 3, x, channels, kernel, how, bias, init, name)


@_CONV
@_of_trained_transposed(
    example=("(N, 16, 4)", "x, 3, 2, stride=2", "(N, 3, 8)"),
    x="Floats (N, c, length).",
)
def conv_transpose1d(
    x: Value,
    channels: int,
    kernel: Any,
    stride: Any = 1,
    *,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    init: Any = "he",
    name: str | None = None,
) -> Value:
    """Return the transposed convolution of x (N, c, length) by trained weights."""
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    how |= {"output_padding": output_padding}
    return _trained(conv_transpose, 1, x, channels, kernel, how, bias, init, name)


@_CONV
@_of_trained_transposed(
    example=("(N, 16, 4, 4)", "x, 3, 2, stride=2", "(N, 3, 8, 8)"),
    x="Floats (N, c, height, width).",
)
def conv_transpose2d(
    x: Value,
    channels: int,
    kernel: Any,
    stride: Any = 1,
    *,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    init: Any = "he",
    name: str | None = None,
) -> Value:
    """Return the transposed convolution of images x by trained weights.

    `<node>.weight` (c, channels / groups, *kernel) and `<node>.bias` (channels,) are as in PyTorch.
    """
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    how |= {"output_padding": output_padding}
    return _trained(conv_transpose, 2, x, channels, kernel, how, bias, init, name)


def _trained(
    function: Callable[..., Value],
    space: int,
    x: Value,
    channels: int,
    kernel: Any,
    how: dict[str, Any],
    bias: bool,
    init: Any,
    name: str | None,
) -> Value:
    """Apply `conv` or `conv_transpose` with new parameters; `how` has its other arguments."""
    op = f"{function.__name__}{space}d"
    given = _channels(function.__name__, x, space)
    units = checked_whole(f"{op}: channels", channels)
    groups = checked_whole(f"{op}: groups", how["groups"])
    if given % groups or units % groups:
        raise GraphError(
            f"{op}: groups is {groups}, it must divide the {given} channels of x and the {units} "
            "of the result",
            hint="each group maps its part of x's channels to its part of the result's",
        )
    window = sizes(op, "kernel", kernel, space)
    b, node = x.builder, x.builder.free_name(op, name)
    transposed = function is conv_transpose
    pair = (given, units // groups) if transposed else (units, given // groups)
    with b.all_or_nothing():
        out, shape = int(transposed), (*pair, *window)
        weight = parameter(b, f"{node}.weight", shape, x.dtype, init, out)
        offset = parameter(b, f"{node}.bias", (units,), x.dtype, Zeros()) if bias else None
        return function(x, weight, offset, **how, name=node)


def _channels(function: str, x: Value, space: int) -> int:
    """Return the channels of x; raise GraphError unless x is images of `space` dimensions."""
    op = f"{function}{space}d"
    x = as_value(op, x)
    channels = x.shape[1] if x.type.rank == space + 2 else None
    if isinstance(channels, int) and x.type.is_float:
        return channels
    message = f"x is {x.type}, {op} takes floats of shape (N, channels, {dimensions(space)})"
    if x.type.rank == space + 1:
        message += "\nadd a dimension for the one channel: gc.unsqueeze(x, 1)"
    raise misfit(f"{function}: {message}", x=x)
