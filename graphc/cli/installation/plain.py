"""Windows, losses and recurrent layers in plain NumPy, one step after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
zeros: Callable[..., Array] = np.zeros
erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[float])


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), which does not overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def softmax(x: Array, axis: int = -1) -> Array:
    """Return shares that add up to 1."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True))


def normed(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """Return x with mean 0 and variance 1 along axes."""
    d = x - x.mean(axes, keepdims=True)
    return np.asarray(d / np.sqrt((d * d).mean(axes, keepdims=True) + eps))


def along(x: Array) -> tuple[int, ...]:
    """Return the shape of a vector of channels beside x."""
    return (-1, *[1] * (x.ndim - 2))


def windows(
    x: Array,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    pads: Any = (),
    dilation: Sequence[int] = (),
    fill: float = 0.0,
) -> Array:
    """Return the windows of (n, c, ...) as (n, c, places..., kernel...)."""
    ones = (1,) * len(kernel)
    stride, dilation = stride or ones, dilation or ones
    x = np.pad(x, [(0, 0), (0, 0), *(pads or [(0, 0)] * len(kernel))], constant_values=fill)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    places = [(e - n) // s + 1 for e, n, s in zip(x.shape[2:], spans, stride, strict=True)]
    out = np.empty((*x.shape[:2], *places, *kernel), x.dtype)
    for at in np.ndindex(*places):
        cuts = zip(at, stride, spans, dilation, strict=True)
        out[:, :, *at] = x[:, :, *(slice(i * s, i * s + n, d) for i, s, n, d in cuts)]
    return out


def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: Sequence[int] = (),
    pads: Any = (),
    dilation: Sequence[int] = (),
    groups: int = 1,
) -> Array:
    """Return the sums of products of filters (out, in / groups, kernel...) with windows."""
    n = w.ndim - 2
    cut = windows(x, w.shape[2:], stride, pads, dilation)
    parts = []
    for part, filters in zip(np.split(cut, groups, 1), np.split(w, groups), strict=True):
        axes = [1, *range(2 + n, 2 + 2 * n)]
        parts.append(np.moveaxis(np.tensordot(part, filters, (axes, [1, *range(2, 2 + n)])), -1, 1))
    out = np.concatenate(parts, 1)
    return out if b is None else out + b.reshape(along(out))


def conv_transpose(
    x: Array,
    w: Array,
    stride: Sequence[int],
    pad: int = 0,
    more: int = 0,
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Array:
    """Return what adds each entry of images, times its filters, to a window."""
    spans = [d * (n - 1) + 1 for d, n in zip(dilation, w.shape[2:], strict=True)]
    h, v = ((e - 1) * s + n + more for e, s, n in zip(x.shape[2:], stride, spans, strict=True))
    out = np.zeros((len(x), groups, w.shape[1], h, v), x.dtype)
    filters = w.reshape(groups, -1, *w.shape[1:])
    for i, j in product(*map(range, x.shape[2:])):
        rows, columns = (
            slice(at * s, at * s + n, d)
            for at, s, n, d in zip((i, j), stride, spans, dilation, strict=True)
        )
        entries = x[:, :, i, j].reshape(len(x), groups, -1)
        out[..., rows, columns] += np.einsum("ngc,gcohw->ngohw", entries, filters)
    return out.reshape(len(x), -1, h, v)[:, :, pad : h - pad, pad : v - pad]


def picked(x: Array, labels: Array) -> Array:
    """Return the number at each row's label."""
    return np.asarray(x[np.arange(len(labels)), labels])


def margins(x: Array, labels: Array) -> Array:
    """Return how much other scores than the label's are above it less 1, in all."""
    return np.asarray(relu(x - picked(x, labels)[:, None] + 1).sum(1) - 1)


def huber(d: Array, edge: float) -> Array:
    """Return half the square of a difference, or beyond an edge what goes on as a line."""
    size = d * np.sign(d.real)
    return np.where(size.real < edge, 0.5 * d**2, edge * (size - edge / 2))


def nll(log_p: Array, labels: Array, weight: Any = None, ignore: int = -1) -> Array:
    """Return the mean of -log_p of the labels, weighted by class."""
    share = np.ones(log_p.shape[1]) if weight is None else np.array(weight)
    return mean_of(-picked(log_p, labels), share[labels] * (labels != ignore))


def smoothed(x: Array, labels: Array, smoothing: float, weight: Array) -> Array:
    """Return the parts of rows in the mean of -log(softmax) by labels that are smoothed."""
    log_p = np.log(softmax(x))
    of_label = picked(log_p, labels) * weight[labels] * (1 - smoothing)
    of_all = (log_p * weight).sum(1) * smoothing / x.shape[1]
    return np.asarray(-(of_label + of_all) / weight[labels].sum())


def grown(f: Callable[[Array], Array], x: Array) -> Array:
    """Return the gradient of the sum of f by x, each row of which counts for itself.

    It is by steps along the imaginary axis, whose differences lose no digits.
    """
    found = np.zeros(x.shape)
    for at in np.ndindex(x.shape[1:]):
        moved = x.astype(complex)
        moved[:, *at] += 1e-30j
        found[:, *at] = f(moved).reshape(len(x), -1).sum(1).imag * 1e30
    return found


def batch_slope(x: Array, gamma: Array, beta: Array, eps: float, train: bool) -> Array:
    """Return the gradient of the sum of batchnorm(x)**2 by x, features along the last axis."""
    mean, var = (x.mean(0), x.var(0)) if train else (0.0, 1.0)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    up = 2 * (xhat * gamma + beta) * gamma
    return np.asarray((up - (up.mean(0) + xhat * (up * xhat).mean(0) if train else 0)) / std)


def loop(
    step: Any, x: Array, start: tuple[Array, ...], lengths: Any = None, back: bool = False
) -> tuple[Array, tuple[Array, ...]]:
    """Return the first state after each step, 0 behind the end of a row, and the last states."""
    ends = np.full(len(x), x.shape[1]) if lengths is None else lengths
    out = np.zeros((*x.shape[:2], start[0].shape[1]), x.dtype)
    for t in reversed(range(x.shape[1])) if back else range(x.shape[1]):
        here = (t < ends)[:, None]
        moved = step(x[:, t], *start)
        start = tuple(np.where(here, new, old) for new, old in zip(moved, start, strict=True))
        out[:, t] = np.where(here, moved[0], 0)
    return out, start


def relu(x: Array) -> Array:
    """Return the larger of x and 0."""
    return np.maximum(x, 0)


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x))."""
    return np.logaddexp(x, 0)


def by_channel(x: Array, gamma: Array, beta: Array) -> Array:
    """Return x scaled and moved by channel."""
    return np.asarray(x * gamma.reshape(along(x)) + beta.reshape(along(x)))


def angles(s: Array) -> Array:
    """Return an angle for each step and pair of columns."""
    half = s.shape[-1] // 2
    return np.asarray(np.arange(s.shape[1])[:, None] / 10000 ** (np.arange(half) / half))


def rotary(s: Array) -> Array:
    """Return s with each pair of columns rotated by an angle for each step."""
    half = s.shape[-1] // 2
    rotated = (s[..., :half] + 1j * s[..., half:]) * np.exp(1j * angles(s))
    return np.concatenate([rotated.real, rotated.imag], -1)


def interpolated(x: Array, at: Array) -> Array:
    """Return entries of the last axis at places between two, or at the edge beyond it."""
    at = np.clip(at, 0, x.shape[-1] - 1)
    low = np.minimum(at.astype(int), x.shape[-1] - 2)
    return np.asarray(x[..., low] * (1 - at + low) + x[..., low + 1] * (at - low))


def scattered(x: Array, y: Array, j: Array, how: Any = lambda old, new: new) -> Array:
    """Return x where columns j of its rows become y's entries, in their order."""
    x = np.array(x)
    for row, place in np.ndindex(j.shape):
        x[row, j[row, place]] = how(x[row, j[row, place]], y[row, place])
    return x


def pooled(m: Array, fill: float) -> Array:
    """Return windows of 3 times 2 entries that overlap, as `windows` does."""
    return windows(m, (3, 2), (2, 1), ((1, 1), (0, 0)), (1, 1), fill)


def states(s: Array, u: Array, n: Array | None, factor: float, reverse: bool = False) -> Array:
    """Return what `own_loop` computes."""
    ends = np.full(len(s), s.shape[1]) if n is None else n
    h = loop(lambda x, h: (np.tanh(h * factor + x),), s, (u[:, :3],), ends, reverse)[0]
    turn = np.arange(s.shape[1])
    count = ends[:, None] - 1 - turn if reverse else turn
    return h + np.where(turn < ends[:, None], 0.1 * count, 0)[..., None]


def mean_of(losses: Array, weight: Array) -> Array:
    """Return the mean of the losses of rows by their weights."""
    return np.asarray((losses * weight).sum() / weight.sum())


def cosine(x: Array, y: Array) -> Array:
    """Return the cosine of the angle of rows."""
    return np.asarray((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)))


def summed(x: Array, places: Array, updates: Array) -> Array:
    """Return x with updates added at places, in order."""
    x = np.array(x)
    np.add.at(x, places, updates)
    return x


def positions(s: Array) -> Array:
    """Return sines and cosines of angles for each step, one pair of columns after the other."""
    return np.stack([np.sin(angles(s)), np.cos(angles(s))], -1).reshape(s.shape[1], -1)


def from_zero(step: Any, s: Array, n: Any, units: Any, start: Any = None, **how: Any) -> Any:
    """Return what a loop does that begins with zeros, so many for each state, or with others."""
    zero = tuple(np.zeros((len(s), size)) for size in units)
    return loop(step, s, zero if start is None else start, n, **how)


def lstm(s: Array, n: Any, w: Array, u: Array, b: Any, c: Any, to: Any = None, **how: Any) -> Any:
    """Return the states of an LSTM, and the last ones; `to` projects the first."""

    def step(x: Array, h: Array, m: Array) -> tuple[Array, ...]:
        i, f, g, o = np.split(x @ w + h @ u + b + c, 4, 1)
        m = sigmoid(f) * m + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(m)
        return h if to is None else h @ to, m

    return from_zero(step, s, n, (len(u), u.shape[1] // 4), **how)


def gru(s: Array, n: Any, w: Array, u: Array, b: Any, c: Any, after: Any = True, **how: Any) -> Any:
    """Return the states of gated recurrent units, and the last ones."""
    k = 2 * len(u)

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        i = x @ w + b
        r, z = (sigmoid(v) for v in np.split((i + h @ u + c)[:, :k], 2, 1))
        more = r * (h @ u[:, k:] + c[k:]) if after else (r * h) @ u[:, k:] + c[k:]
        return ((1 - z) * np.tanh(i[:, k:] + more) + z * h,)

    return from_zero(step, s, n, (len(u),), **how)


def rnn(s: Array, n: Any, w: Array, u: Array, b: Any, c: Any, f: Any = np.tanh, **how: Any) -> Any:
    """Return the states of a recurrent network, and the last ones."""
    return from_zero(lambda x, h: (f(x @ w + h @ u + b + c),), s, n, (len(u),), **how)
