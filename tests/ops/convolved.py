"""Convolution and its gradients as sums over places, one at a time: slow, and plain to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from graphc.ir.op import Array


class Convolved:
    """The three of a stride, a dilation and a number of groups, for shapes of x and w."""

    def __init__(self, own: dict[str, Any], x: Sequence[int], w: Sequence[int]) -> None:
        self.stride, self.dilation, self.groups = own["stride"], own["dilation"], own["groups"]
        self.x, self.w = tuple(x), tuple(w)

    def meetings(self, out: Sequence[int]) -> Iterator[tuple[Any, Any, Any]]:
        """For each place and offset: the index of the pixel in x, in w and in y."""
        for place in product(*map(range, out)):
            for offset in product(*map(range, self.w[:-2])):
                steps = zip(place, self.stride, offset, self.dilation, strict=True)
                pixel = tuple(p * s + k * d for p, s, k, d in steps)
                for g in range(self.groups):
                    c, o = self.w[-2], self.w[-1] // self.groups
                    units = slice(g * o, g * o + o)
                    yield (
                        (slice(None), *pixel, slice(g * c, g * c + c)),
                        (*offset, slice(None), units),
                        (slice(None), *place, units),
                    )

    def conv(self, x: Array, w: Array) -> Array:
        sizes = zip(self.x[1:-1], self.w[:-2], self.stride, self.dilation, strict=True)
        out = [(size - (k - 1) * d - 1) // s + 1 for size, k, s, d in sizes]
        y = np.zeros((len(x), *out, self.w[-1]), x.dtype)
        for at_x, at_w, at_y in self.meetings(out):
            y[at_y] += np.asarray(x)[at_x] @ np.asarray(w)[at_w]
        return y

    def conv_dx(self, dy: Array, w: Array) -> Array:
        dx = np.zeros((len(dy), *self.x[1:]), dy.dtype)
        for at_x, at_w, at_y in self.meetings(dy.shape[1:-1]):
            dx[at_x] += np.asarray(dy)[at_y] @ np.asarray(w)[at_w].T
        return dx

    def conv_dw(self, x: Array, dy: Array) -> Array:
        dw = np.zeros(self.w, x.dtype)
        for at_x, at_w, at_y in self.meetings(dy.shape[1:-1]):
            dw[at_w] += np.asarray(x)[at_x].T @ np.asarray(dy)[at_y]
        return dw
