"""Converters of discrete Fourier transforms, as products with matrices of cosines and sines.

Complex numbers are pairs along the last axis; a last axis of size one holds real numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.onnx.call import Call, Result
from graphc.onnx.known import NotSupported


def _dft(call: Call) -> Value:
    x = call.value(0)
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
    return transformed(call, x, axis, length, inverse, half)


def _real_of_half(call: Call, x: Value, axis: int, length: int) -> Value:
    """Return the real signal whose transform has this first half; the other half mirrors it."""
    bins = length // 2 + 1
    x = _of_length(x, axis, bins)
    twice = np.full(bins, 2.0)
    twice[0] = 1
    if length % 2 == 0:
        twice[-1] = 1
    angles = _angles(bins, length, length)
    order = [i for i in range(x.type.rank - 1) if i != axis] + [axis]
    real, turned = (
        gc.matmul(
            gc.transpose(x[..., i], order),
            call.constant(twice[:, None] * wave(angles) / length, x.dtype),
        )
        for i, wave in enumerate((np.cos, np.sin))
    )
    back = [order.index(i) for i in range(x.type.rank - 1)]
    return gc.unsqueeze(gc.transpose(real - turned, back), -1)


def transformed(call: Call, x: Value, axis: int, length: int, inverse: bool, half: bool) -> Value:
    """Return X[k] = sum of x[n] * exp(-2 pi i k n / length), or the inverse transform.

    The inverse has the opposite sign in the exponent, and divides by `length`.
    """
    x = _of_length(x, axis, length)
    last = x.type.rank - 2
    order = [i for i in range(last + 1) if i != axis] + [axis]
    parts = [gc.transpose(x[..., i], order) for i in range(2) if i < _numbers(x)]
    bins = length // 2 + 1 if half else length
    angles = _angles(length, bins, length)
    cosines, sines = np.cos(angles), np.sin(angles) * (1 if inverse else -1)
    share = 1 / length if inverse else 1.0
    real, turned = (call.constant(m * share, x.dtype) for m in (cosines, sines))
    found = [gc.matmul(parts[0], real), gc.matmul(parts[0], turned)]
    if len(parts) == 2:
        found[0] = found[0] - gc.matmul(parts[1], turned)
        found[1] = found[1] + gc.matmul(parts[1], real)
    back = [order.index(i) for i in range(last + 1)]
    return gc.stack([gc.transpose(part, back) for part in found], -1)


def _angles(rows: int, columns: int, length: int) -> Array:
    """Return the matrix of 2 pi i k / length at row i, column k."""
    spend_array(4 * rows * columns)  # and their cosines and sines
    return np.asarray(2 * np.pi * np.outer(np.arange(rows), np.arange(columns)) / length)


def _numbers(x: Value) -> int:
    """Return the numbers per element: one if real, two if complex; else raise NotSupported."""
    count = x.shape[-1]
    if count not in (1, 2):
        raise NotSupported(f"numbers of {count} parts")
    return int(count)


def _of_length(x: Value, axis: int, length: int) -> Value:
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
    window = call.maybe(2)
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
    return transformed(call, frames, 2, length, False, bool(call.attribute("onesided", 1)))


CONVERTERS: dict[str, Callable[[Call], Result]] = {"DFT": _dft, "STFT": _stft}
