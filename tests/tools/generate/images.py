"""Steps on images: convolution, pools, what normalises channels, padding."""

from __future__ import annotations

from typing import Any

import graphc as gc
from tests.tools.generate.growth import Growth, features


def image(g: Growth, x: gc.Value, channels: int | None = None) -> gc.Value:
    """The value with channels and one or two dimensions of space, mapped where it is too small."""
    if x.type.rank in (3, 4) and channels in (None, x.shape[1]) and g.chance(0.8):
        return x
    c = channels or g.choice(1, 2, 3, 4)
    space = g.choice((3,), (5,), (2, 2), (3, 2), (4, 3), (1,), (1, 3))
    size = c
    for length in space:
        size *= length
    flat = gc.flatten(x)
    if features(x) != size:
        flat = gc.affine(flat, size)
    return gc.reshape(flat, (gc.N, c, *space))


def space(x: gc.Value) -> list[int]:
    """The sizes of an image."""
    return [size for size in x.shape[2:] if isinstance(size, int)]


def _padding(g: Growth, x: gc.Value, least: int) -> Any:
    """Enough for a window of `least` pixels; if it is dilated, no tap may lie in an image."""
    if g.chance(0.3):
        return max(0, least - min(space(x)))
    pairs = []
    for size in space(x):
        short = max(0, least - size)
        before = g.choice(short, short // 2)
        pairs.append((before, short - before + g.choice(0, 1)))
    return tuple(pairs)


def conv(g: Growth, x: gc.Value) -> gc.Value:
    h = image(g, x)
    channels, kernel = h.shape[1], g.choice(1, 2, 2, 3)
    assert isinstance(channels, int)
    dilation = g.choice(1, 1, 1, 2, 4)
    groups = g.choice(*(k for k in (1, 1, 2, 3, 4) if channels % k == 0))
    padding = "same" if g.chance(0.3) else _padding(g, h, (kernel - 1) * dilation + 1)
    function = gc.conv1d if h.type.rank == 3 else gc.conv2d
    return function(
        h,
        groups * g.choice(1, 2, 3),
        kernel,
        g.choice(1, 1, 2),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=g.chance(0.7),
    )


def conv_block(g: Growth, x: gc.Value) -> gc.Value:
    """Convolution, normalised and bent, and perhaps with what it was made of."""
    h = image(g, x)
    function = gc.conv1d if h.type.rank == 3 else gc.conv2d
    channels = h.shape[1]
    assert isinstance(channels, int)
    y = function(h, channels, 3, padding=1, bias=False)
    y = gc.relu(g.choice(gc.batchnorm, gc.instancenorm, gc.tanh)(y))
    if g.chance(0.4):
        return gc.concat([y, h], axis=1)
    scale = g.parameter(channels, *(1 for _ in space(h)))
    return y + h if g.chance(0.6) else y * scale + h


def conv_transpose(g: Growth, x: gc.Value) -> gc.Value:
    h = image(g, x)
    channels, kernel, stride = h.shape[1], g.choice(1, 2, 3), g.choice(1, 2)
    assert isinstance(channels, int)
    groups = g.choice(1, channels)
    function = gc.conv_transpose1d if h.type.rank == 3 else gc.conv_transpose2d
    padding = g.choice(0, 1) if kernel == 3 and min(space(h)) > 1 else 0
    return function(
        h,
        groups * g.choice(1, 2),
        kernel,
        stride,
        padding=padding,
        output_padding=g.choice(0, 1) if stride == 2 else 0,
        groups=groups,
        bias=g.chance(0.7),
    )


def pool(g: Growth, x: gc.Value) -> gc.Value:
    h = image(g, x)
    if g.chance(0.15):
        return gc.adaptive_avg_pool(h, g.choice(1, 2, 3))
    kernel = g.choice(2, 2, 3)
    how: dict[str, Any] = {
        "stride": g.choice(None, 1, 2),
        "padding": tuple((max(0, kernel - size), 0) for size in space(h)),
        "ceil": g.chance(0.4),
    }
    if g.chance(0.3):
        how["padding"] = 1
    if min(space(h)) + 1 < kernel:
        return gc.global_avg_pool(h)
    if g.chance(0.6):
        return gc.max_pool(h, kernel, **how)
    return gc.avg_pool(h, kernel, **how, count_include_pad=g.chance(0.5))


def pool_slope(g: Growth, x: gc.Value) -> gc.Value:
    """The derivative of a pooled image by its pixels: second derivatives when trained."""
    h = image(g, x)
    found = gc.grad(gc.sum(gc.tanh(pool(g, h))), h)
    assert isinstance(found, gc.Value)
    return gc.tanh(found) * h


def whole_image(g: Growth, x: gc.Value) -> gc.Value:
    """Each channel scaled by one number of its pixels."""
    h = image(g, x)
    number = g.choice(gc.global_avg_pool, gc.global_max_pool)(h)
    return h * gc.sigmoid(number)


def groupnorm(g: Growth, x: gc.Value) -> gc.Value:
    h = image(g, x)
    channels = h.shape[1]
    assert isinstance(channels, int)
    return gc.groupnorm(h, g.choice(*(k for k in (1, 2, 3) if channels % k == 0)), eps=0.1)


def pad(g: Growth, x: gc.Value) -> gc.Value:
    pads = [(0, 0), *((g.choice(0, 1), g.choice(0, 2)) for _ in x.shape[1:])]
    return gc.pad(x, pads, g.choice(0.0, 0.5))


STEPS = {
    conv: 2,
    conv_block: 1,
    conv_transpose: 1,
    pool: 3,
    pool_slope: 2,
    whole_image: 2,
    groupnorm: 1,
    pad: 1,
}
