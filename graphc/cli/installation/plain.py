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
    stride: Sequence[int],
    pads: Any,
    dilation: Sequence[int],
    fill: float = 0.0,
) -> Array:
    """Return the windows of (n, c, ...) as (n, c, places..., kernel...)."""
    x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    places = [(e - n) // s + 1 for e, n, s in zip(x.shape[2:], spans, stride, strict=True)]
    out = np.empty((*x.shape[:2], *places, *kernel), x.dtype)
    for at in np.ndindex(*places):
        cut = [
            slice(i * s, i * s + n, d)
            for i, s, n, d in zip(at, stride, spans, dilation, strict=True)
        ]
        out[:, :, *at] = x[:, :, *cut]
    return out


def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: Sequence[int] = (1, 1),
    pads: Any = ((0, 0), (0, 0)),
    dilation: Sequence[int] = (1, 1),
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
    pad: int,
    more: int,
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


def nll(log_p: Array, labels: Array, weight: Array | None = None, ignore: int = -1) -> Array:
    """Return the mean of -log_p of the labels, weighted by class."""
    share = np.ones(log_p.shape[1]) if weight is None else weight
    share = share[labels] * (labels != ignore)
    return np.asarray((-log_p[np.arange(len(labels)), labels] * share).sum() / share.sum())


def smoothed(x: Array, labels: Array, smoothing: float, weight: Array) -> Array:
    """Return the parts of rows in the mean of -log(softmax) by labels that are smoothed."""
    log_p = np.log(softmax(x))
    of_label = log_p[np.arange(len(labels)), labels] * weight[labels] * (1 - smoothing)
    of_all = (log_p * weight).sum(1) * smoothing / x.shape[1]
    return np.asarray(-(of_label + of_all) / weight[labels].sum())


def gru_step(x: Array, h: Array, w: Array, u: Array, b: Array, c: Array, after: bool) -> Array:
    """Return the next state of gated recurrent units."""
    n = h.shape[1]
    i = x @ w + b
    r, z = (sigmoid(v) for v in np.split((i + h @ u + c)[:, : 2 * n], 2, 1))
    more = r * (h @ u[:, 2 * n :] + c[2 * n :]) if after else (r * h) @ u[:, 2 * n :] + c[2 * n :]
    return np.asarray((1 - z) * np.tanh(i[:, 2 * n :] + more) + z * h)


def lstm_step(x: Array, h: Array, s: Array, w: Array, u: Array, b: Array) -> tuple[Array, Array]:
    """Return the next states of an LSTM."""
    i, f, g, o = np.split(x @ w + h @ u + b, 4, 1)
    s = sigmoid(f) * s + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(s), s


def projected(states: tuple[Array, Array], w: Array) -> tuple[Array, Array]:
    """Return the states of an LSTM, the first one as a product."""
    return states[0] @ w, states[1]


def grown(f: Callable[[Array], Array], x: Array, share: Any = 1.0) -> Array:
    """Return the gradient of the sum of share * f by x, each row of which counts for itself.

    It is by steps along the imaginary axis, whose differences lose no digits.
    """
    found = np.zeros(x.shape)
    for at in np.ndindex(x.shape[1:]):
        moved = x.astype(complex)
        moved[:, *at] += 1e-30j
        rows = f(moved) * share
        found[:, *at] = rows.reshape(len(x), -1).sum(1).imag * 1e30
    return found


def batch_slope(x: Array, gamma: Array, beta: Array, eps: float, train: bool) -> Array:
    """Return the gradient of the sum of batchnorm(x)**2 by x, features along the last axis."""
    mean, var = (x.mean(0), x.var(0)) if train else (0.0, 1.0)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    up = 2 * (xhat * gamma + beta) * gamma
    return np.asarray((up - (up.mean(0) + xhat * (up * xhat).mean(0) if train else 0)) / std)


def loop(
    step: Callable[..., tuple[Array, ...]],
    x: Array,
    start: tuple[Array, ...],
    lengths: Any = None,
    reverse: bool = False,
) -> tuple[Array, tuple[Array, ...]]:
    """Return the first state after each step, 0 behind the end of a row, and the last states."""
    ends = np.full(len(x), x.shape[1]) if lengths is None else lengths
    out = np.zeros((*x.shape[:2], start[0].shape[1]), x.dtype)
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
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


def rotary(s: Array) -> Array:
    """Return s with each pair of columns rotated by an angle for each step."""
    half = s.shape[-1] // 2
    angle = np.arange(s.shape[1])[:, None] / 10000 ** (np.arange(half) / half)
    rotated = (s[..., :half] + 1j * s[..., half:]) * np.exp(1j * angle)
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
    half = s.shape[-1] // 2
    angle = np.arange(s.shape[1])[:, None] / 10000 ** (np.arange(half) / half)
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(s.shape[1], -1)


def lstm_ends(
    s: Array, n: Array | None, h: Array, m: Array, w: Array, u: Array, b: Any, c: Any
) -> tuple[Array, ...]:
    """Return the last states of an LSTM that begins with h and m."""
    return loop(lambda x, h, m: lstm_step(x, h, m, w, u, b + c), s, (h, m), n)[1]


def lstm(s: Array, n: Array | None, back: bool, w: Array, u: Array, b: Array, c: Array) -> Array:
    """Return the states of an LSTM that begins with 0."""
    start = (np.zeros((len(s), len(u))),) * 2
    return loop(lambda x, h, m: lstm_step(x, h, m, w, u, b + c), s, start, n, back)[0]


def gru(
    s: Array,
    n: Array | None,
    after: bool,
    w: Array,
    u: Array,
    b: Array,
    c: Array,
    start: Array | None = None,
    back: bool = False,
) -> Array:
    """Return the last states of gated recurrent units that begin with 0 or other states."""
    first = (np.zeros((len(s), len(u))) if start is None else start,)
    return loop(lambda x, h: (gru_step(x, h, w, u, b, c, after),), s, first, n, back)[1][0]


def rnn(s: Array, n: Array, w: Array, u: Array, b: Array, c: Array) -> Array:
    """Return the states of a recurrent network with relu."""
    start = (np.zeros((len(s), len(u))),)
    return loop(lambda x, h: (relu(x @ w + h @ u + b + c),), s, start, n)[0]
