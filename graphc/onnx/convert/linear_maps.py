"""Converters of linear maps whose matrices are known at import: resizing and Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, get_args

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.onnx.call import Call, Converter, NotSupported
from graphc.ops.resize import Rounding, rounded

ROW = 2000
"""The number of elements that are computed in the time that one row of a matrix takes."""


@dataclass(frozen=True)
class Axis:
    """An axis to resize: its sizes before and after, its scale, and the part of it that is read."""

    number: int
    before: int
    after: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def _places(axis: Axis, mode: str) -> Array:
    """Return the coordinate of each new entry among the old ones."""
    spend_array(8 * axis.after)
    x, n, scale = np.arange(axis.after, dtype=float), axis.before, axis.scale
    length = n * scale  # of which `after` is the whole part
    middle = (x + 0.5) / scale - 0.5
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and length > 1):
        return np.asarray(middle)
    if mode == "pytorch_half_pixel":
        return x * 0
    if mode == "half_pixel_symmetric":
        return np.asarray(n / 2 * (1 - axis.after / length) + middle)
    if mode == "tf_half_pixel_for_nn":
        return np.asarray((x + 0.5) / scale)
    if mode == "asymmetric":
        return np.asarray(x / scale)
    if mode == "align_corners":
        return x * 0 if length == 1 else np.asarray(x * (n - 1) / (length - 1))
    if mode == "tf_crop_and_resize":
        if axis.after == 1:
            return np.array([0.5 * (axis.start + axis.end) * (n - 1)])
        step = (axis.end - axis.start) * (n - 1) / (axis.after - 1)
        return np.asarray(axis.start * (n - 1) + x * step)
    raise NotSupported(f"coordinate_transformation_mode={mode!r}")


def _nearest(places: Array, how: Any, size: int) -> Array:
    if how not in get_args(Rounding):
        raise NotSupported(f"nearest_mode={how!r}")
    return rounded(places, how).clip(0, size - 1).astype(np.int64)


def _hat(x: Array) -> Array:
    """Return the weights of linear interpolation: 1 at 0, and 0 from 1 on."""
    return np.asarray(np.clip(1 - np.abs(x), 0, 1))


def _cubic(a: float) -> Callable[[Array], Array]:
    """Return the weight function of cubic interpolation with slope a.

    R. Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 15.
    """

    def weights(x: Array) -> Array:
        d = np.abs(x)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0)))

    return weights


def _matrix(
    places: Array, axis: Axis, kernel: Callable[[Array], Array], reach: int, call: Call
) -> Array:
    """Return a matrix with a row for each new entry: the share of each old one in it."""
    shrink = min(axis.scale, 1.0) if call.attribute("antialias", 0) else 1.0
    width = ceil(reach / shrink)
    spend_array(axis.after * (axis.before + ROW + 2 * width))
    matrix = np.zeros((axis.after, axis.before))
    for row, place in enumerate(places):
        around = np.arange(floor(place) - width, floor(place) + width + 2)
        shares = kernel((around - place) * shrink)
        if call.attribute("exclude_outside", 0):
            shares = np.where((around < 0) | (around >= axis.before), 0, shares)
        if shrink < 1 or call.attribute("exclude_outside", 0):
            shares = shares / shares.sum()
        np.add.at(matrix[row], np.clip(around, 0, axis.before - 1), shares)
    return matrix


def _mapped(call: Call, x: Value, axis: int, matrix: Array) -> Value:
    """Apply a linear map along an axis, as a product with a matrix (before, after)."""
    last = axis == x.type.rank - 1
    order = [*(i for i in range(x.type.rank) if i != axis), axis]
    moved = x if last else gc.transpose(x, order)
    product = gc.matmul(moved, call.constant(matrix, x.dtype))
    return product if last else gc.transpose(product, np.argsort(order).tolist())


def _axes(call: Call, x: Value) -> list[Axis]:
    """Return the axes to resize, by their scales or their new sizes."""
    rank = x.type.rank
    # From opset 11 on operand 1 is the part that is read.  Before it, there are no sizes: none has
    # operand 9.
    first, sizes_at, scales_at = (2, 3, 2) if call.version >= 11 else (1, 9, 1)
    numbers = tuple(axis % rank for axis in call.attribute("axes") or range(rank))
    before = [x.shape[number] for number in numbers]
    if call.has(sizes_at) and call.array(sizes_at).size:
        after = list(call.ints(sizes_at))
        if not all(isinstance(size, int) for size in before):
            raise NotSupported("new sizes for a batch of any size")
        ratios = [a / b for a, b in zip(after, before, strict=True) if isinstance(b, int)]
        policy = call.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = (min if policy == "not_larger" else max)(ratios)
            ratios = [ratio] * len(ratios)
            after = [floor(ratio * b + 0.5) for b in before if isinstance(b, int)]
    else:
        found: Any = call.attribute("scales") if call.version < 9 else call.array(scales_at)
        ratios = [float(ratio) for ratio in found]
        after = [
            floor(b * r) if isinstance(b, int) else 0 for b, r in zip(before, ratios, strict=True)
        ]
    part = call.array(1).tolist() if first == 2 and call.has(1) else []
    count = len(numbers)
    axes = []
    for i, number in enumerate(numbers):
        size = before[i]
        ends = (part[i], part[i + count]) if len(part) == 2 * count else (0.0, 1.0)
        if isinstance(size, int):
            axes.append(Axis(number, size, after[i], ratios[i], *ends))
        elif ratios[i] != 1:
            raise NotSupported("the batch dimension is resized")
    return axes


def _resize(call: Call) -> Value:
    x = call.value(0)
    # Upsample, and Resize before opset 11, have one rule for coordinates and one for rounding.
    old = call.version < 11
    coordinates = call.attribute(
        "coordinate_transformation_mode", "asymmetric" if old else "half_pixel"
    )
    mode = call.attribute("mode", "nearest")
    cropped = coordinates == "tf_crop_and_resize"
    outside: list[Value] = []
    for axis in _axes(call, x):
        if axis.before == axis.after and axis.scale == 1 and not cropped:
            continue
        places = _places(axis, coordinates)
        if mode == "nearest":
            how = call.attribute("nearest_mode", "floor" if old else "round_prefer_floor")
            x = gc.gather(x, _nearest(places, how, axis.before), axis.number)
        elif mode in ("linear", "bilinear", "cubic"):
            cubic = mode == "cubic"
            kernel = _cubic(call.attribute("cubic_coeff_a", -0.75)) if cubic else _hat
            matrix = _matrix(places, axis, kernel, 2 if cubic else 1, call)
            x = _mapped(call, x, axis.number, matrix.T)
        else:
            raise NotSupported(f"mode={mode!r}")
        beyond = (places < 0) | (places > axis.before - 1)
        if cropped and beyond.any():
            shape = [-1 if i == axis.number else 1 for i in range(x.type.rank)]
            outside.append(call.constant(beyond.reshape(shape)))
    for place in outside:
        x = gc.where(place, call.attribute("extrapolation_value", 0.0), x)
    return x


def _dft(call: Call) -> Value:
    x = call.value(0)
    # In opset 20 the axis became an operand.
    axis = int(call.number(2, -2)) if call.version >= 20 else call.attribute("axis", 1)
    axis %= x.type.rank
    inverse, half = bool(call.attribute("inverse", 0)), bool(call.attribute("onesided", 0))
    size = x.shape[axis]
    usual = (size - 1) * 2 if inverse and half and isinstance(size, int) else size
    length = int(call.number(1)) if call.has(1) else usual
    if not isinstance(length, int) or length < 1:
        raise NotSupported(f"a transform of {length} numbers")
    if inverse and half:
        return _real_of_half(call, x, axis, length)
    return _transformed(call, x, axis, length, inverse, half)


def _real_of_half(call: Call, x: Value, axis: int, length: int) -> Value:
    """Return the real signal whose transform has this first half; the other half mirrors it."""
    bins = length // 2 + 1
    x = _cut_or_padded(x, axis, bins)
    twice = np.full(bins, 2.0)
    twice[0] = 1
    if length % 2 == 0:
        twice[-1] = 1
    angles = _angles(bins, length, length)
    real, imaginary = (
        _mapped(call, x[..., i], axis, twice[:, None] * wave(angles) / length)
        for i, wave in enumerate((np.cos, np.sin))
    )
    return gc.unsqueeze(real - imaginary, -1)


def _transformed(call: Call, x: Value, axis: int, length: int, inverse: bool, half: bool) -> Value:
    """Return X[k] = sum of x[n] * exp(-2 pi i k n / length), or the inverse transform.

    The inverse has the opposite sign in the exponent, and divides by `length`.
    """
    x = _cut_or_padded(x, axis, length)
    count = x.shape[-1]
    if count not in (1, 2):
        raise NotSupported(f"numbers of {count} parts")
    parts = [x[..., i] for i in range(int(count))]
    bins = length // 2 + 1 if half else length
    angles = _angles(length, bins, length)
    share = 1 / length if inverse else 1.0
    waves = np.cos(angles), np.sin(angles) * (1 if inverse else -1)
    cosines, sines = ((wave * share).astype(x.dtype) for wave in waves)
    real, imaginary = (_mapped(call, parts[0], axis, wave) for wave in (cosines, sines))
    if count == 2:
        real = real - _mapped(call, parts[1], axis, sines)
        imaginary = imaginary + _mapped(call, parts[1], axis, cosines)
    return gc.stack([real, imaginary], -1)


def _angles(rows: int, columns: int, length: int) -> Array:
    """Return the matrix of 2 pi i k / length at row i, column k."""
    spend_array(4 * rows * columns)  # and their cosines and sines
    return np.asarray(2 * np.pi * np.outer(np.arange(rows), np.arange(columns)) / length)


def _cut_or_padded(x: Value, axis: int, length: int) -> Value:
    """Return the first `length` entries along an axis, padded with zeros if there are fewer."""
    size = x.shape[axis]
    if not isinstance(size, int):
        raise NotSupported("a transform along the batch")
    if size > length:
        return x[(*(slice(None),) * axis, slice(length))]
    if size == length:
        return x
    return gc.pad(x, [(0, length - size if i == axis else 0) for i in range(x.type.rank)])


def _stft(call: Call) -> Value:
    """Transform frames of a signal (batch, length, 1), each multiplied by a window."""
    x, step = call.value(0), int(call.number(1))
    if x.type.rank == 2:
        x = gc.unsqueeze(x, 2)
    size = x.shape[1]
    window = call.optional(2)
    length = int(call.number(3)) if call.has(3) else call.type(2).shape[0]
    if not isinstance(size, int) or not isinstance(length, int) or not 0 < length <= size:
        raise NotSupported(f"frames of {length} of {size} numbers")
    if step < 1:
        raise NotSupported(f"frames that are {step} apart")
    spend_array(((size - length) // step + 1) * length)
    starts = np.arange(0, size - length + 1, step)
    frames = gc.gather(x, starts[:, None] + np.arange(length), 1)
    if window is not None:
        frames = frames * gc.reshape(window, (length, 1))
    return _transformed(call, frames, 2, length, False, bool(call.attribute("onesided", 1)))


CONVERTERS: dict[str, Converter] = {
    "DFT": _dft,
    "STFT": _stft,
    "Resize": _resize,
    "Upsample": _resize,
}
