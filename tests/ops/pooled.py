"""Pools as loops over places and offsets: slow, and plain to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from graphc.ir.op import Array


class Pooled:
    """The pools of a window, for a shape of x (n, *space, c)."""

    def __init__(self, own: dict[str, Any], x: Sequence[int]) -> None:
        self.kernel, self.stride, self.dilation = own["kernel"], own["stride"], own["dilation"]
        self.x = tuple(x)
        sizes = zip(self.x[1:-1], self.kernel, self.stride, self.dilation, strict=True)
        self.out = tuple((size - (k - 1) * d - 1) // s + 1 for size, k, s, d in sizes)

    def places(self) -> Iterator[tuple[Any, list[Any]]]:
        """The index of each number of y, and those of the pixels of its window."""
        for n, c in product(range(self.x[0]), range(self.x[-1])):
            for place in product(*map(range, self.out)):
                yield (n, *place, c), [(n, *pixel, c) for pixel in self.window(place)]

    def window(self, place: Sequence[int]) -> Iterator[tuple[int, ...]]:
        for offset in product(*map(range, self.kernel)):
            steps = zip(place, self.stride, offset, self.dilation, strict=True)
            yield tuple(p * s + k * d for p, s, k, d in steps)

    def max_pool_index(self, x: Array) -> Array:
        index = np.zeros((self.x[0], *self.out, self.x[-1]), int)
        for at, window in self.places():
            index[at] = np.argmax([x[pixel] for pixel in window])
        return index

    def max_pool_grad(self, index: Array, dout: Array) -> Array:
        dx = np.zeros(self.x)
        for at, window in self.places():
            dx[window[int(index[at])]] += dout[at]
        return dx

    def max_pool_pick(self, index: Array, x: Array) -> Array:
        y = np.zeros(np.shape(index))
        for at, window in self.places():
            y[at] = x[window[int(index[at])]]
        return y

    def sum_pool(self, x: Array) -> Array:
        y = np.zeros((self.x[0], *self.out, self.x[-1]))
        for at, window in self.places():
            y[at] = sum(x[pixel] for pixel in window)
        return y

    def sum_pool_grad(self, dout: Array) -> Array:
        dx = np.zeros(self.x)
        for at, window in self.places():
            for pixel in window:
                dx[pixel] += dout[at]
        return dx
