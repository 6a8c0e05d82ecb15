"""Changes of size: interpolation, by gathers with constant indices, and means of equal parts."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any, Literal, SupportsIndex

import numpy as np

from graphc.base.arguments import check_choice, finite, plain
from graphc.base.memory import check_memory
from graphc.ir.build import Value, as_value, misfit
from graphc.ir.op import Array
from graphc.ops.apply import with_attributes
from graphc.ops.arrange import axes_of, fixed_sizes, repeat
from graphc.ops.elementwise import add, mul
from graphc.ops.gather import Gather, gather
from graphc.ops.linalg import matmul
from graphc.ops.pool_layer import avg_pool, dimensions_of, fixed
from graphc.ops.shape import reshape, transpose
from graphc.ops.source import constant
from graphc.ops.window import sizes as sizes_of

__all__ = ["adaptive_avg_pool", "resize"]

Mode = Literal["nearest", "linear", "cubic"]
Places = Literal["half_pixel", "align_corners", "asymmetric"]
Rounding = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
_CHOICES: dict[str, tuple[str, ...]] = {
    "mode": ("nearest", "linear", "cubic"),
    "places": ("half_pixel", "align_corners", "asymmetric"),
    "rounding": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
}
_A = -0.75
"""The slope of the cubic filter at 1 (Keys 1981), as in PyTorch and ONNX."""


@with_attributes(
    example=("(N, 3, 4, 4)", "x, (8, 8)", "(N, 3, 8, 8)"),
    axes="The new size of each axis, or its factor; and these axes, by default the last.",
    rounding='"nearest", "linear" or "cubic"; "half_pixel", "align_corners" or "asymmetric"; for\n'
    '"nearest" "round_prefer_floor", "round_prefer_ceil", "floor" or "ceil".',
    returns="Of x's dtype.",
    raises="If an axis is the batch's, a size is not a whole number from 1 up, or a word is "
    "unknown.",
)
def resize(
    x: Value,
    sizes: Sequence[SupportsIndex] | None = None,
    *,
    scales: Sequence[float] | None = None,
    axes: Sequence[SupportsIndex] | None = None,
    mode: Mode = "linear",
    places: Places = "half_pixel",
    rounding: Rounding = "round_prefer_floor",
    name: str | None = None,
) -> Value:
    """Return x interpolated to other sizes.

    With s the scale, entry i of the result lies at (i + 0.5) / s - 0.5 of x ("half_pixel"), at
    i / s ("asymmetric"), or so that the first and the last entries of both meet ("align_corners").
    Beyond the edges of x its edge entries are used.  PyTorch's "nearest" is "asymmetric" with
    "floor"; the cubic filter is that of Keys 1981 (doi:10.1109/TASSP.1981.1163711).
    """
    x = as_value("resize", x)
    for what, given in (("mode", mode), ("places", places), ("rounding", rounding)):
        check_choice(f"resize: {what}", given, _CHOICES[what])
    wanted = sizes if sizes is not None else scales if scales is not None else ()
    if not isinstance(wanted, Sequence | np.ndarray) or isinstance(wanted, str):
        raise misfit(
            f"resize: {wanted!r} is not a size or a factor for each axis\n"
            "say gc.resize(x, (16, 16)), or gc.resize(x, scales=(2, 2)) for factors",
            x=x,
        )
    chosen = tuple(range(-len(wanted), 0)) if axes is None else tuple(map(plain, axes))
    axis_of = [axes_of(Gather(), x, axis)[0] for axis in chosen]
    old = [fixed_sizes(Gather(), x, axis)[0] for axis in chosen]
    new = _new_sizes(x, old, sizes, scales)
    with x.builder.all_or_nothing():
        for i, axis in enumerate(axis_of):
            scale = new[i] / old[i] if scales is None else float(scales[i])
            at = _places(old[i], new[i], scale, places)
            x = _interpolated(x, axis, at, mode, rounding)
        return reshape(x, x.shape, name=name)  # only names the result


def _new_sizes(x: Value, old: list[int], sizes: Any, scales: Any) -> list[int]:
    if (sizes is None) == (scales is None):
        raise x.builder.error(Gather(), "resize takes either sizes or scales", (x,))
    if sizes is not None:
        new = [plain(size) for size in sizes]
    else:
        factors = [finite(scale) for scale in scales]
        new = [floor(size * (factor or 0)) for size, factor in zip(old, factors, strict=False)]
    if len(new) != len(old) or any(type(size) is not int or size < 1 for size in new):
        given = list(sizes if sizes is not None else scales)
        message = f"{given} do not give sizes of 1 or more for {len(old)} axes"
        raise x.builder.error(Gather(), message, (x,))
    for size in new:
        check_memory(size, "entry", 8, "resize: take fewer")
    return new


def _places(old: int, new: int, scale: float, places: Places) -> Array:
    """Return the coordinate in x of each entry of the result."""
    numbers = np.arange(new)
    if places == "half_pixel":
        return np.asarray((numbers + 0.5) / scale - 0.5)
    if places == "asymmetric":
        return np.asarray(numbers / scale)
    return np.asarray(numbers * ((old - 1) / (new - 1) if new > 1 else 0.0))


def _interpolated(x: Value, axis: int, at: Array, mode: Mode, rounding: Rounding) -> Value:
    (size,) = fixed_sizes(Gather(), x, axis)
    if mode == "nearest":
        return _taken(x, axis, rounded(at, rounding).clip(0, size - 1).astype(np.int64))
    first = np.floor(at)
    total: Value | None = None
    for step, weight in _weights(at - first, mode):
        entries = (first + step).clip(0, size - 1).astype(np.int64)
        shape = [1] * x.type.rank
        shape[axis] = len(at)
        share = constant(x.builder, weight.reshape(shape), x.dtype)
        part = mul(gather(x, entries, axis), share)
        total = part if total is None else add(total, part)
    assert total is not None
    return total


def _taken(x: Value, axis: int, entries: Array) -> Value:
    """Return entries of an axis; if possible by `repeat`, whose gradient is a sum."""
    (size,) = fixed_sizes(Gather(), x, axis)
    times = len(entries) // size
    if times and np.array_equal(entries, np.arange(size).repeat(times)):
        return repeat(x, times, axis)
    return gather(x, entries, axis)


def rounded(at: Array, rounding: Rounding) -> Array:
    """Return coordinates rounded to entries."""
    if rounding == "floor":
        return np.floor(at)
    if rounding == "ceil":
        return np.ceil(at)
    # np.rint would round halves to even numbers; ONNX wants all of them down, or all up.
    return np.ceil(at - 0.5) if rounding == "round_prefer_floor" else np.floor(at + 0.5)


def _weights(past: Array, mode: Mode) -> list[tuple[int, Array]]:
    """Return the entries around a coordinate, as offsets from the one before, and their weights.

    `past` is the distance from the one before, in 0..1.
    """
    if mode == "linear":
        return [(0, 1 - past), (1, past)]
    return [(step, _cubic(np.abs(past - step))) for step in (-1, 0, 1, 2)]


def _cubic(distance: Array) -> Array:
    d = distance
    near = ((_A + 2) * d - (_A + 3)) * d * d + 1
    far = ((_A * d - 5 * _A) * d + 8 * _A) * d - 4 * _A
    return np.where(d <= 1, near, far)


@with_attributes(
    example=("(N, 3, 7, 7)", "x, 2", "(N, 3, 2, 2)"),
    x="Floats of shape (N, c, *space), with 1 to 3 dimensions of space.",
    size="The number of windows: a whole number, or one for each dimension of space.",
    returns="Of shape (N, c, *size).",
    raises="If x is not images, or `size` is not whole numbers.",
)
def adaptive_avg_pool(x: Value, size: Any, *, name: str | None = None) -> Value:
    """Return the mean of each of a given number of windows of nearly equal size.

    Window i of n over s pixels is floor(i * s / n) to before ceil((i + 1) * s / n), as in PyTorch.
    """
    x = as_value("adaptive_avg_pool", x)
    rank = dimensions_of("adaptive_avg_pool", x)
    out, space = sizes_of("adaptive_avg_pool", "size", size, rank), fixed(x.shape[2:])
    for pixels, windows in zip(space, out, strict=False):
        check_memory(windows, "window", 8 * pixels, "adaptive_avg_pool: take fewer")
    if len(space) == rank and all(s % n == 0 for s, n in zip(space, out, strict=True)):
        return avg_pool(x, tuple(s // n for s, n in zip(space, out, strict=True)), name=name)
    b, node = x.builder, x.builder.free_name("adaptive_avg_pool", name)
    with b.all_or_nothing():
        for i, (s, n) in enumerate(zip(space, out, strict=True)):
            last = i == rank - 1
            shares = constant(b, _shares(s, n, x.dtype), name=f"{node}.shares{i}")
            axes = tuple(range(x.type.rank))
            permuted = (*axes[: 2 + i], *axes[3 + i :], 2 + i)
            moved = x if last else transpose(x, permuted)
            x = matmul(moved, shares, name=node if last else None)
            x = x if last else transpose(x, tuple(permuted.index(axis) for axis in axes))
        return x


def _shares(pixels: int, windows: int, dtype: str) -> Array:
    """Return the share of each pixel in each window's mean: (pixels, windows)."""
    shares = np.zeros((pixels, windows), dtype)
    for i in range(windows):
        part = slice(i * pixels // windows, -(-(i + 1) * pixels // windows))
        shares[part, i] = 1 / (part.stop - part.start)
    return shares
