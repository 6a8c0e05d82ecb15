"""A step written by hand for numba: fused loops around BLAS, for nets that are mere chains."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import scipy.linalg  # noqa: F401  numba's np.dot calls the BLAS that it finds here

from tests.tools.benchmarks.peers.outline import Array
from tests.tools.benchmarks.peers.sides.numba_loops import (
    bias,
    bias_relu,
    column_sums,
    normalise,
    normalise_back,
    relu_back,
    softmax,
    update,
)
from tests.tools.benchmarks.peers.sides.side import Infer, Side, Step, Unsupported
from tests.tools.benchmarks.peers.workloads import Chain, Workload

f32 = np.float32


@numba.njit(fastmath=True)
def forward(x, weights, biases, outs):  # type: ignore[no-untyped-def]
    h = x
    last = len(weights) - 1
    for i in range(last):
        np.dot(h, weights[i], outs[i])
        bias_relu(outs[i], biases[i])
        h = outs[i]
    np.dot(h, weights[last], outs[last])
    bias(outs[last], biases[last])
    return outs[last]


@numba.njit(fastmath=True)
def step(x, y, p, dp, h, d, flat, gradients, speeds, lr):  # type: ignore[no-untyped-def]
    weights, biases = p
    dweights, dbiases = dp
    loss = softmax(forward(x, weights, biases, h), d[len(h) - 1], y)
    back(x, weights, dweights, dbiases, h, d)
    update(flat, gradients, speeds, lr)
    return loss


@numba.njit(fastmath=True)
def back(x, weights, dweights, dbiases, h, d):  # type: ignore[no-untyped-def]
    for i in range(len(weights) - 1, 0, -1):
        np.dot(h[i - 1].T, d[i], dweights[i])
        column_sums(d[i], dbiases[i])
        np.dot(d[i], weights[i].T, d[i - 1])
        relu_back(d[i - 1], h[i - 1])
    np.dot(x.T, d[0], dweights[0])
    column_sums(d[0], dbiases[0])


@numba.njit(fastmath=True)
def normalised_step(x, y, p, dp, h, d, flat, gradients, speeds, lr, kept, keep, seed):  # type: ignore[no-untyped-def]
    """As `step`, with batchnorm and dropout; `kept` is what is kept from forward to backward."""
    weights, biases, gammas, betas = p
    dweights, dbiases, dgammas, dbetas = dp
    normal, scales, means, variances = kept
    last = len(weights) - 1
    inner = x
    for i in range(last):
        np.dot(inner, weights[i], h[i])
        statistics = (scales[i], means[i], variances[i])
        draw = (keep, seed * 7919 + i * 104729)
        normalise(h[i], biases[i], gammas[i], betas[i], normal[i], statistics, draw)
        inner = h[i]
    np.dot(inner, weights[last], h[last])
    bias(h[last], biases[last])
    loss = softmax(h[last], d[last], y)
    for i in range(last, -1, -1):
        if i < last:
            normalise_back(d[i], h[i], gammas[i], normal[i], scales[i], keep, dgammas[i], dbetas[i])
        column_sums(d[i], dbiases[i])
        if i > 0:
            np.dot(h[i - 1].T, d[i], dweights[i])
            np.dot(d[i], weights[i].T, d[i - 1])
        else:
            np.dot(x.T, d[i], dweights[i])
    update(flat, gradients, speeds, lr)
    return loss


class Numba(Side):
    """Threads are BLAS's only: a second pool beside it costs more than it brings."""

    def versions(self) -> str:
        return f"numba {numba.__version__}, numpy {np.__version__}"

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        chain = _chain(workload)
        flat = np.concatenate([p.ravel() for p in parameters])
        gradients, speeds = np.zeros_like(flat), np.zeros_like(flat)
        p = _grouped(_views(flat, parameters), chain)
        dp = _grouped(_views(gradients, parameters), chain)
        h = tuple(np.empty((workload.batch, width), f32) for width in chain.sizes[1:])
        d = tuple(np.empty_like(array) for array in h)
        rest = (h, d, flat, gradients, speeds, f32(workload.lr))
        if not chain.batchnorm:
            return lambda feeds: float(step(feeds["x"], feeds["y"], p, dp, *rest))
        kept = _kept(h)
        keep = f32(workload.keep if dropout and workload.keep else 1)
        count = 0

        def run(feeds: Any) -> float:
            nonlocal count
            count += 1
            return float(normalised_step(feeds["x"], feeds["y"], p, dp, *rest, kept, keep, count))

        return run

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        chain = _chain(workload)
        weights, biases = _grouped(parameters, chain)[:2]
        outs = tuple(np.empty((batch, width), f32) for width in chain.sizes[1:])
        return lambda feeds: forward(feeds["x"], weights, biases, outs).copy()


def _chain(workload: Workload) -> Chain:
    if workload.chain is None:
        raise Unsupported("it is written for chains of layers")
    return workload.chain


def _views(flat: Array, parameters: list[Array]) -> list[Array]:
    """The flat array cut up, in the parameters' shapes."""
    ends = np.cumsum([p.size for p in parameters])
    return [
        flat[end - p.size : end].reshape(p.shape) for p, end in zip(parameters, ends, strict=True)
    ]


def _grouped(parameters: list[Array], chain: Chain) -> tuple[tuple[Array, ...], ...]:
    """Weights and biases of all layers, and gammas and betas where there is batchnorm."""
    if not chain.batchnorm:
        return tuple(parameters[::2]), tuple(parameters[1::2])
    inner, last = parameters[:-2], parameters[-2:]
    weights, biases, gammas, betas = (tuple(inner[i::4]) for i in range(4))
    return (*weights, last[0]), (*biases, last[1]), gammas, betas


def _kept(h: tuple[Array, ...]) -> tuple[Any, ...]:
    """Normalised values, scales, running means and variances."""
    widths = [array.shape[1] for array in h]
    return (
        tuple(np.empty_like(array) for array in h),
        tuple(np.empty(width, f32) for width in widths),
        tuple(np.zeros(width, f32) for width in widths),
        tuple(np.ones(width, f32) for width in widths),
    )
