"""Indices that are computed in the net are held within their axis: against plain loops.

In what is read or written, and in the gradients, on every axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array

X = np.array([[0.5, -1.25, 2.0], [1.5, 0.75, -0.25], [-2.5, 3.25, -3.0], [2.25, -0.5, 1.0]])
WIDE = [[-7, -2, 9], [3, 4, 5], [0, 1, -1], [8, 2, 3]]
"""Indices for each element of X, below 0 and beyond any axis; several meet at an end."""
PAIRS = [[-3, 1], [0, 1], [9, -1], [3, 7], [2, 2], [3, 2]]
"""Indices of both axes."""
UPDATES = np.linspace(-4.0, 4.0, 12).reshape(4, 3) + 0.1
COMBINED: Mapping[str, Callable[[float, float], float]] = {
    "none": lambda _, new: new,
    "add": lambda old, new: old + new,
    "max": max,
    "min": min,
}


def held(index: int, size: int) -> int:
    return min(max(index, 0), size - 1)


def gather(x: Array, k: Any, axis: int) -> Array:
    return np.stack([x.take(held(i, x.shape[axis]), axis) for i in k[:, 0]], axis)


def gather_elements(x: Array, k: Any, axis: int) -> Array:
    found = np.zeros(k.shape)
    for place in np.ndindex(k.shape):
        found[place] = x[moved(place, axis, k, x)]
    return found


def moved(place: tuple[int, ...], axis: int, k: Any, x: Array) -> tuple[int, ...]:
    """Return a place with the index there instead of its entry of an axis."""
    at = list(place)
    at[axis] = held(int(k[place]), x.shape[axis])
    return tuple(at)


def scatter_elements(x: Array, k: Any, updates: Array, axis: int, how: str) -> Array:
    found = x.copy()
    for place in np.ndindex(k.shape):
        at = moved(place, axis, k, x)
        found[at] = COMBINED[how](found[at], updates[place])
    return found


def gather_nd(x: Array, k: Any) -> Array:
    return np.array([x[held(i, 4), held(j, 3)] for i, j in k])


def scatter_nd(x: Array, k: Any, updates: Array, how: str) -> Array:
    found = x.copy()
    for (i, j), new in zip(k, updates, strict=True):
        at = held(i, 4), held(j, 3)
        found[at] = COMBINED[how](found[at], new)
    return found


Case = tuple[Callable[..., gc.Value], Callable[..., Array], Any, Array | None]
"""The op, plain NumPy, the indices, and the updates if it writes."""


def cases() -> Mapping[str, Case]:
    found: dict[str, Case] = {}
    for axis in (0, 1):
        few = np.array(WIDE)[:, :1] if axis == 0 else np.array(WIDE)[:3, :1]
        found[f"gather {axis}"] = (
            lambda x, k, axis=axis: gc.gather(x, k[:, 0], axis),
            lambda x, k, axis=axis: gather(x, k, axis),
            few,
            None,
        )
        found[f"gather_elements {axis}"] = (
            lambda x, k, axis=axis: gc.gather_elements(x, k, axis),
            lambda x, k, axis=axis: gather_elements(x, k, axis),
            np.array(WIDE),
            None,
        )
        for how in COMBINED:
            found[f"scatter_elements {axis} {how}"] = (
                lambda x, k, u, axis=axis, how=how: gc.scatter_elements(
                    x, k, u, axis, reduction=how
                ),
                lambda x, k, u, axis=axis, how=how: scatter_elements(x, k, u, axis, how),
                np.array(WIDE),
                UPDATES,
            )
    found["gather_nd"] = gc.gather_nd, gather_nd, np.array(PAIRS), None
    for how in COMBINED:
        found[f"scatter_nd {how}"] = (
            lambda x, k, u, how=how: gc.scatter_nd(x, k, u, reduction=how),
            lambda x, k, u, how=how: scatter_nd(x, k, u, how),
            np.array(PAIRS),
            UPDATES.ravel()[:6],
        )
    return found


CASES = cases()


def slopes(
    function: Callable[..., Array], starts: list[Array], k: Any, operand: int, weight: Array
) -> Array:
    """The gradient of the weighted sum of a function, by differences: it is linear nearby."""
    found = np.zeros(starts[operand].shape)
    for place in np.ndindex(found.shape):
        ends = []
        for by in (2.0**-10, -(2.0**-10)):
            x, *more = (array.copy() for array in starts)
            (x, *more)[operand][place] += by
            ends.append((function(x, k, *more) * weight).sum())
        found[place] = (ends[0] - ends[1]) * 2.0**9
    return found


def check(backend: str) -> None:
    net = gc.Net("indexed", dtype="float64")
    wanted: dict[str, Array] = {}
    losses, feeds = [], {}
    for number, (name, (op, by_numpy, k, updates)) in enumerate(CASES.items()):
        starts = [X] if updates is None else [X, updates]
        names = [f"{letter}{number}" for letter in "xu"[: len(starts)]]
        x, *more = (net.parameter(n, a.shape, init=a) for n, a in zip(names, starts, strict=True))
        indices = net.input(f"k{number}", k.shape, dtype="int64")
        feeds[f"k{number}"] = k + 1
        y = net.output(name, op(x, indices - 1, *more))
        wanted[name] = by_numpy(X, k, *starts[1:])
        weight = np.random.default_rng(number).integers(1, 9, wanted[name].shape).astype(float)
        losses.append(gc.sum(y * net.constant(weight)))
        for place, name in enumerate(names):
            wanted[name] = slopes(by_numpy, starts, k, place, weight)
    net.loss("loss", sum(losses[1:], losses[0]))
    ex = gc.Executor(gc.compile(net, batch=1, backend=backend))
    found = {**ex.forward(feeds, train=True), **ex.backward()}
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-9, err_msg=name)


def test_indices_are_held_within_their_axis() -> None:
    check("numpy")


@pytest.mark.needs("native")
def test_so_they_are_in_native_code() -> None:
    check("native")
