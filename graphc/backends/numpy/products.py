"""Matrix products and convolutions as calls of NumPy.

A convolution copies the windows of a block of images to columns (im2col) and multiplies them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product as positions
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc.backends.backend import Call
from graphc.backends.numpy.values import Part, Sizes, matrix_of
from graphc.ir.forms import Window
from graphc.ir.narrow import narrow
from graphc.ir.op import Array
from graphc.ir.tensor_type import dim_at, shape_at
from graphc.kernels.interpret import matrices
from graphc.kernels.kernel import BatchedGemm, Convolution, Gemm

BLOCK = 1 << 16
"""The most elements of columns of a block, unless one image has more."""
ROUNDED = 1 << 14
"""The most sums to which terms are added in order at a time, unless one row has more."""


def works(kernel: Gemm) -> list[tuple[str, Callable[[Sizes, Part], tuple[int, ...]]]]:
    """Return the dtype and the shape rule of each work array of a product."""
    exact = kernel.dtype == "int32"
    found = [partial(shape, kernel) for shape in (_left, _right, _result_shape) if exact]
    if isinstance(kernel, Convolution):
        found += [partial(shape, kernel) for shape in (_padded, _columns, _filters, _sums)]
    return [(_exact(kernel) if exact else kernel.factor_dtype, shape) for shape in found]


def _exact(kernel: Gemm) -> str:
    """Return the floats in which all sums of products of int8 are exact; BLAS multiplies them."""
    return "float32" if dim_at(kernel.k, 1) * 128**2 <= 1 << 24 else "float64"


def _left(kernel: Gemm, sizes: Sizes, part: Part) -> tuple[int, ...]:
    """Return the shape of a part's rows of a, or of its images."""
    if isinstance(kernel, Convolution):
        return (part.height, kernel.window.pixels)
    return (part.height, dim_at(kernel.k, sizes.n))


def _right(kernel: Gemm, sizes: Sizes, part: Part) -> tuple[int, ...]:
    """Return the shape of b."""
    return dim_at(kernel.k, sizes.n), sizes.columns


def _result_shape(kernel: Gemm, sizes: Sizes, part: Part) -> tuple[int, ...]:
    """Return the shape of a part of the result."""
    return sizes.shape("each", part)


def multiply(
    kernel: Gemm, sizes: Sizes, part: Part, out: Array, a: Array, b: Array, *work: Array
) -> Sequence[Call]:
    """Return the calls of the product of a part."""
    if kernel.dtype == "int32":
        return list(_of_int8(kernel, sizes, part, out, a, b, *work))
    if isinstance(kernel, BatchedGemm):
        return _batched(kernel, sizes, part, out, a, b)
    if isinstance(kernel, Convolution):
        return list(_convolved(kernel, sizes, part, out, a, b, *work))
    of_a, of_b = (shape_at(space, sizes.n) for space in kernel.factor_spaces)
    left, right = matrix_of(a, of_a), matrix_of(b, of_b)
    left = left[:, part.rows].T if kernel.trans_a else left[part.rows]
    return _dot(kernel, left, right.T if kernel.trans_b else right, out)


def _of_int8(
    kernel: Gemm, sizes: Sizes, part: Part, out: Array, a: Array, b: Array, *work: Array
) -> Iterator[Call]:
    """Yield the calls of a product of int8 by way of floats; their rows are those of the part."""
    left, right, sums, *rest = work
    pixels = a.reshape(-1, left.shape[1]) if isinstance(kernel, Convolution) else None
    rows = matrix_of(a, (sizes.rows, left.shape[1])) if pixels is None else pixels
    yield partial(np.copyto, left, rows[part.rows])
    yield partial(np.copyto, right, matrix_of(b, right.shape))
    floats = replace(kernel, dtype=left.dtype.name)
    mine = Part(slice(0, part.height), part.columns)
    yield from multiply(floats, sizes, mine, sums, left, right, *rest)
    yield partial(np.copyto, out, sums, "unsafe")


def _dot(kernel: Gemm, left: Array, right: Array, out: Array) -> Sequence[Call]:
    """Return the calls of a product.

    `dot` starts faster and passes transposes to BLAS as they are, but copies a view of some
    columns; matmul does not.
    """
    if kernel.ordered:
        return partial(out.fill, 0), *_rounded(kernel, left, right, out)
    whole = all(array.flags.forc for array in (left, right))
    if whole and out.flags.c_contiguous:
        return (partial(left.dot, right, out),)
    return (partial(np.matmul, left, right, out),)


def _rounded(kernel: Gemm, left: Array, right: Array, out: Array) -> Iterator[Call]:
    """Yield the calls that add ordered products to sums, for rows that the cache holds."""
    assert kernel.order is not None, "terms have an order"
    step = max(ROUNDED // max(out.shape[-1], 1), 1)
    for start in range(0, out.shape[-2], step):
        rows = slice(start, start + step)
        sums, factor = out[..., rows, :], left[..., rows, :]
        yield partial(narrow().add_products, sums, factor, right, kernel.run, kernel.order)


# ------------------------------------------------------------------ stacks


def _batched(
    kernel: BatchedGemm, sizes: Sizes, part: Part, out: Array, a: Array, b: Array
) -> Sequence[Call]:
    of_a, of_b = kernel.factor_spaces
    left = matrices(a, kernel.sizes, kernel.strides_a, of_a, sizes.n)[part.rows]
    right = matrices(b, kernel.sizes, kernel.strides_b, of_b, sizes.n)[part.rows]
    left = left.swapaxes(-1, -2) if kernel.trans_a else left
    right = right.swapaxes(-1, -2) if kernel.trans_b else right
    if kernel.ordered:
        return _dot(kernel, left, right, out)
    return (partial(np.matmul, left, right, out),)


# ------------------------------------------------------------------ convolutions


def _is_depthwise(kernel: Convolution) -> bool:
    """Return whether each group has one channel and one column."""
    window = kernel.window
    return window.groups > 1 and window.channels == 1 and kernel.n == window.groups


def _block(kernel: Convolution, sizes: Sizes, part: Part) -> int:
    """Return how many images are copied to columns at once; a weight gradient sums over all."""
    images = dim_at(kernel.images, sizes.n) if kernel.trans_a else part.height
    return max(1, min(images, BLOCK // max(kernel.window.count * kernel.window.depth, 1)))


def _padded(kernel: Convolution, sizes: Sizes, part: Part) -> tuple[int, ...]:
    """Return the shape of images with zeros around and between their pixels."""
    window = kernel.window
    images = _block(kernel, sizes, part)
    return (0,) if window.is_direct else (images, *window.extent, window.pixel)


def _columns(kernel: Convolution, sizes: Sizes, part: Part) -> tuple[int, ...]:
    """Return the shape of the columns of a block, or of its products if it is depthwise."""
    window = kernel.window
    images = _block(kernel, sizes, part)
    if _is_depthwise(kernel):
        return (images, *window.places, window.groups)
    return (images * window.count, window.depth)


def _filters(kernel: Convolution, sizes: Sizes, part: Part) -> tuple[int, ...]:
    """Return the shape of the factor of one group, if it is copied."""
    window = kernel.window
    units = dim_at(kernel.n, sizes.n) // window.groups
    if kernel.trans_a and window.groups > 1:
        return (_block(kernel, sizes, part) * window.count, units)
    copied = kernel.trans_b or window.groups > 1
    return (window.depth, units) if copied and not _is_depthwise(kernel) else (0,)


def _sums(kernel: Convolution, sizes: Sizes, part: Part) -> tuple[int, ...]:
    """Return the shape of products that are added to or copied into the result."""
    window = kernel.window
    units = dim_at(kernel.n, sizes.n) // window.groups
    if kernel.trans_a:
        return (window.groups,) if _is_depthwise(kernel) else (window.depth, units)
    if window.groups == 1 or _is_depthwise(kernel):
        return (0,)
    return (_block(kernel, sizes, part) * window.count, units)


def _convolved(
    kernel: Convolution, sizes: Sizes, part: Part, out: Array, a: Array, b: Array, *work: Array
) -> Iterator[Call]:
    """Yield the calls of a convolution, or of the gradient of its weight, block by block."""
    window, (padded, *rest) = kernel.window, work
    images = a.reshape(-1, *window.space, window.pixel)
    images = images if kernel.trans_a else images[part.rows]
    if not window.is_direct:
        yield partial(padded.fill, 0)
    if kernel.trans_a:
        yield partial(out.fill, 0)
    elif kernel.trans_b and window.groups == 1:
        yield partial(np.copyto, *_all_filters(kernel, b, rest[1]))
    step = _block(kernel, sizes, part)
    for start in range(0, len(images), step):
        block = images[start : start + step]
        held = block
        if not window.is_direct:
            held = padded[: len(block)]
            yield _spread(window, block, held)
        if kernel.trans_a:
            rows = slice(start * window.count, (start + len(block)) * window.count)
            dy = b.reshape(-1, out.shape[-1])[rows]
            yield from _weight_gradient(kernel, held, dy, out, *rest)
        else:
            y = out[start : start + step]
            yield from _result(kernel, held, b, y, *rest)


def _all_filters(kernel: Convolution, b: Array, filters: Array) -> tuple[Array, Array]:
    """Return the memory of the one group's factor, and the weight that is copied to it."""
    factor = _factor(kernel, b, 0, filters.shape[-1])
    return filters.reshape(factor.shape), factor


def _spread(window: Window, images: Array, held: Array) -> Call:
    """Return the call that copies the pixels to their positions among zeros."""
    to, of = _positions(window)
    return partial(np.copyto, held[to], images[of])


@lru_cache(maxsize=256)
def _positions(window: Window) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the positions among zeros, and the pixels that are copied there."""
    to, of = [slice(None)], [slice(None)]
    axes = zip(window.space, window.before, window.divisor, window.extent, strict=True)
    for size, before, apart, extent in axes:
        first = max(0, -(before // apart))
        first = next(p for p in range(max(first - 1, 0), size + 1) if before + p * apart >= 0)
        last = min(size - 1, (extent - 1 - before) // apart)
        of.append(slice(first, last + 1))
        begin = before + first * apart
        to.append(slice(begin, before + last * apart + 1 if last >= first else begin, apart))
    return tuple(to), tuple(of)


def _met(window: Window, held: Array, group: int) -> Array:
    """Return a view of the window of each place: (images, *places, *filter, channels)."""
    image, *steps, item = held.strides
    places = [s * step for s, step in zip(window.stride, steps, strict=True)]
    offsets = [d * step for d, step in zip(window.dilation, steps, strict=True)]
    first = held[..., group * window.channels :]
    shape = (len(held), *window.places, *window.kernel, window.channels)
    return as_strided(first, shape, (image, *places, *offsets, item))


def _gathered(window: Window, held: Array, group: int, columns: Array) -> tuple[Call, Array]:
    """Return the call that copies windows to columns, and the columns as a matrix.

    Neighbouring pixels are copied as one element of many bytes, much faster than small copies.
    """
    matrix = columns[: len(held) * window.count]
    met = _met(window, held, group)
    whole = matrix.reshape(met.shape)
    joined = 2 if window.dilation[-1] == 1 and window.channels == held.shape[-1] else 1
    size = prod(met.shape[-joined:]) * held.itemsize
    kind = np.dtype((np.void, size))
    start = group * window.channels * held.itemsize
    source = np.ndarray(met.shape[:-joined], kind, held, start, met.strides[:-joined])
    return partial(np.copyto, np.ndarray(met.shape[:-joined], kind, whole), source), matrix


def _result(kernel: Convolution, held: Array, b: Array, y: Array, *work: Array) -> Iterator[Call]:
    window, (columns, filters, sums) = kernel.window, work
    units = y.shape[-1] // window.groups
    if _is_depthwise(kernel):
        yield from _depthwise(kernel, held, b, y, columns)
        return
    for group in range(window.groups):
        copy, matrix = _gathered(window, held, group, columns)
        yield copy
        flat = y.reshape(-1, y.shape[-1])
        if window.groups == 1:
            factor = filters if kernel.trans_b else b.reshape(window.depth, units)
            yield from _dot(kernel, matrix, factor, flat)
            continue
        factor = _factor(kernel, b, group, units)
        yield partial(np.copyto, filters.reshape(factor.shape), factor)
        own = sums[: len(flat)]
        yield from _dot(kernel, matrix, filters, own)
        yield partial(np.copyto, flat[:, group * units : (group + 1) * units], own)


def _factor(kernel: Convolution, b: Array, group: int, units: int) -> Array:
    """Return the weight of a group, (offsets, channels, units); a transposed one is flipped."""
    window = kernel.window
    offsets = prod(window.kernel)
    if kernel.trans_b:
        stored = b.reshape(offsets, units, window.groups, window.channels)
        return stored[::-1, :, group].swapaxes(-1, -2)
    return b.reshape(offsets, window.channels, window.groups, units)[:, :, group]


def _offset_views(window: Window, held: Array) -> Iterator[Array]:
    """Yield for each offset of the filter a view of the pixels that the places read."""
    for offset in positions(*map(range, window.kernel)):
        axes = zip(offset, window.dilation, window.places, window.stride, strict=True)
        cuts = (slice(o * d, o * d + (p - 1) * s + 1, s) for o, d, p, s in axes)
        yield held[(slice(None), *cuts)]


def _depthwise(
    kernel: Convolution, held: Array, b: Array, y: Array, products: Array
) -> Iterator[Call]:
    """Yield calls that multiply and add elements, offset by offset."""
    window = kernel.window
    weights = b.reshape(-1, window.groups)
    weights = weights[::-1] if kernel.trans_b else weights
    total, term = y.reshape(len(held), *window.places, -1), products[: len(held)]
    for i, met in enumerate(_offset_views(window, held)):
        yield partial(np.multiply, met, weights[i], term if i else total)
        if i:
            yield partial(np.add, total, term, total)


def _weight_gradient(
    kernel: Convolution, held: Array, dy: Array, out: Array, *work: Array
) -> Iterator[Call]:
    """Yield calls that add the share of a block of images to the gradient of a weight."""
    window, (columns, copied, sums) = kernel.window, work
    units = out.shape[-1] // window.groups
    if _is_depthwise(kernel):
        sent, term = dy.reshape(len(held), *window.places, -1), columns[: len(held)]
        axes = tuple(range(term.ndim - 1))
        for i, met in enumerate(_offset_views(window, held)):
            yield partial(np.multiply, met, sent, term)
            yield partial(np.add.reduce, term, axes, None, sums)
            yield partial(np.add, out[i], sums, out[i])
        return
    for group in range(window.groups):
        copy, matrix = _gathered(window, held, group, columns)
        yield copy
        part = slice(group * units, (group + 1) * units)
        sent = dy
        if window.groups > 1:
            sent = copied[: len(dy)]
            yield partial(np.copyto, sent, dy[:, part])
        if kernel.ordered:
            yield from _rounded(kernel, matrix.T, sent, out)
            continue
        yield from _dot(kernel, matrix.T, sent, sums)
        yield partial(np.add, out[:, part], sums, out[:, part])
