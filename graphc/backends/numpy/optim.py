"""Kernels of the optimizer steps, in pieces that stay in the cache.

Several parameters that lie side by side may come as one flat array, so all code here works on
flat views.  Scalars are read as 0-d arrays of the same dtype, whose content changes between runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import sqrt

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op
from graphc.ops.optim import (
    CHUNK,
    AdamMean,
    AdamSquare,
    AdamStep,
    Average,
    ClipScale,
    Momentum,
    NesterovStep,
    SgdStep,
)
from graphc.ops.rate import RateOp


def _pieces(arrays: Sequence[Array], scratch: Sequence[Array] = ()) -> Iterator[list[Array]]:
    """Yield flat views of the same part of each array, and as much of each scratch array."""
    flat = [_flat(array) for array in arrays]
    size = flat[0].size
    length = max(min([CHUNK, *(piece.size for piece in scratch)]), 1)
    for begin in range(0, size, length):
        end = min(begin + length, size)
        views = [array[begin:end] for array in flat]
        yield [*views, *(array[: end - begin] for array in scratch)]


def _flat(array: Array) -> Array:
    assert array.flags.c_contiguous, "an optimizer step was given a strided array"
    return array.reshape(-1)


def _momentum(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    assert isinstance(op, Momentum)
    mu, decay = number(op.mu, out), number(op.decay, out)
    calls: list[Call] = []
    for o, v, g, *rest in _pieces([out, *ins], scratch):
        calls.append(partial(np.multiply, v, mu, out=o))
        calls.append(partial(np.add, o, g, out=o))
        if op.decay:
            p, t = rest
            calls.append(partial(np.multiply, p, decay, out=t))
            calls.append(partial(np.add, o, t, out=o))
    return calls


def _sgd_step(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    assert isinstance(op, SgdStep)
    rate, decay = ins[2], number(op.decay, out)
    calls: list[Call] = []
    for o, p, g, t in _pieces([out, *ins[:2]], scratch):
        if op.decay:
            calls.append(partial(np.multiply, p, decay, out=t))
            calls.append(partial(np.add, t, g, out=t))
            g = t
        calls.append(partial(np.multiply, g, rate, out=t))
        calls.append(partial(np.subtract, p, t, out=o))
    return calls


def _nesterov_step(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> list[Call]:
    assert isinstance(op, NesterovStep)
    rate, mu, share = ins[3], number(op.mu, out), number(op.decay / op.mu, out)
    calls: list[Call] = []
    for o, p, v, g, t in _pieces([out, *ins[:3]], scratch):
        if op.decay:  # mu*(v + decay/mu*p) + g
            calls.append(partial(np.multiply, p, share, out=t))
            calls.append(partial(np.add, t, v, out=t))
            v = t
        calls.append(partial(np.multiply, v, mu, out=t))
        calls.append(partial(np.add, t, g, out=t))
        calls.append(partial(np.multiply, t, rate, out=t))
        calls.append(partial(np.subtract, p, t, out=o))
    return calls


def _gradient(g: Array, p: Sequence[Array], decay: Array, t: Array) -> tuple[Array, list[Call]]:
    """Return g + decay*p and the calls that compute it in t; without a parameter it is g."""
    if not p:
        return g, []
    return t, [partial(np.multiply, p[0], decay, out=t), partial(np.add, t, g, out=t)]


def _adam_mean(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    assert isinstance(op, AdamMean)
    old, new = number(op.beta1, out), number(1 - op.beta1, out)
    decay = number(op.decay, out)
    calls: list[Call] = []
    for o, m, g, *p, t in _pieces([out, *ins], scratch):
        g, made = _gradient(g, p, decay, t)
        calls.extend(made)
        calls.append(partial(np.multiply, g, new, out=t))
        calls.append(partial(np.multiply, m, old, out=o))
        calls.append(partial(np.add, o, t, out=o))
    return calls


def _adam_square(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    assert isinstance(op, AdamSquare)
    old, new = number(op.beta2, out), number(1 - op.beta2, out)
    decay = number(op.decay, out)
    calls: list[Call] = []
    for o, s, g, *p, t in _pieces([out, *ins], scratch):
        g, made = _gradient(g, p, decay, t)
        calls.extend(made)
        calls.append(partial(np.multiply, g, g, out=t))
        calls.append(partial(np.multiply, t, new, out=t))
        calls.append(partial(np.multiply, s, old, out=o))
        calls.append(partial(np.add, o, t, out=o))
    return calls


def _adam_step(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    assert isinstance(op, AdamStep)
    eps, rate, kept = (scratch[0][i : i + 1].reshape(()) for i in range(3))
    calls: list[Call] = [partial(_set_adam, op, ins[3], ins[4], eps, rate, kept)]
    for o, p, m, s, t in _pieces([out, *ins[:3]], scratch[1:]):
        calls.append(partial(np.sqrt, s, out=t))
        calls.append(partial(np.add, t, eps, out=t))
        calls.append(partial(np.divide, m, t, out=t))
        calls.append(partial(np.multiply, t, rate, out=t))
        if op.decay:
            calls.append(partial(np.multiply, p, kept, out=o))
            p = o
        calls.append(partial(np.subtract, p, t, out=o))
    return calls


def _set_adam(
    op: AdamStep, lr: Array, updates: Array, eps: Array, rate: Array, kept: Array
) -> None:
    """Set the scalars of an update.

    mhat / (sqrt(shat) + eps) = m * (root/first) / (sqrt(s) + eps*root), root = sqrt(second).
    """
    first, second = op.corrections(updates)
    root, now = sqrt(second), float(lr)
    eps[()] = op.eps * root
    rate[()] = now * root / first
    kept[()] = 1.0 - now * op.decay


def _average(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    assert isinstance(op, Average)
    kept, fresh = (scratch[0][i : i + 1].reshape(()) for i in range(2))
    calls: list[Call] = [partial(_set_average, op, ins[2], kept, fresh)]
    for o, a, w, t in _pieces([out, *ins[:2]], scratch[1:]):
        calls.append(partial(np.multiply, w, fresh, out=t))
        calls.append(partial(np.multiply, a, kept, out=o))
        calls.append(partial(np.add, o, t, out=o))
    return calls


def _set_average(op: Average, averages: Array, kept: Array, fresh: Array) -> None:
    kept[()], fresh[()] = op.shares(averages)


def _square_sum(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    one, wide = scratch
    calls: list[Call] = [partial(out.fill, 0)]
    for g, piece in _pieces([ins[0]], [wide]):
        calls.append(partial(np.copyto, piece, g))
        calls.append(partial(piece.dot, piece, out=one))
        calls.append(partial(np.add, out, one, out=out))
    return calls


def _clip_scale(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    assert isinstance(op, ClipScale)
    total, limit = ins

    def run() -> None:
        out[()] = op.scale(total, limit)

    return [run]


def _rate(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    assert isinstance(op, RateOp)
    rate, updates = ins

    def run() -> None:
        out[()] = float(rate) * op.factor_at(updates)

    return [run]


def _cleared(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> list[Call]:
    return [partial(out.fill, 0)]


OPTIM_KERNELS: dict[str, Kernel] = {
    "momentum": _momentum,
    "sgd_step": _sgd_step,
    "nesterov_step": _nesterov_step,
    "adam_mean": _adam_mean,
    "adam_square": _adam_square,
    "adam_step": _adam_step,
    "average": _average,
    "square_sum": _square_sum,
    "clip_scale": _clip_scale,
    "warm_up_rate": _rate,
    "cosine_rate": _rate,
    "step_rate": _rate,
    "corrected": _rate,
    "nadam_momentum": _rate,
    "cleared": _cleared,
}
