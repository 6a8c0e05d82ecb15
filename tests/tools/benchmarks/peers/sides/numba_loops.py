"""The loops of the step for numba: each goes over its arrays once where it can."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from tests.tools.benchmarks.peers.workloads import DECAY, EPS, MOMENTUM

f32 = np.float32
ZERO, ONE = f32(0), f32(1)
KEPT, NEW, SMALL, SPEED = f32(DECAY), f32(1 - DECAY), f32(EPS), f32(MOMENTUM)


@njit(fastmath=True)
def bias(z, b):
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] += b[j]


@njit(fastmath=True)
def bias_relu(z, b):
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] = max(z[i, j] + b[j], ZERO)


@njit(fastmath=True)
def relu_back(d, h):
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            d[i, j] = d[i, j] if h[i, j] > ZERO else ZERO


@njit(fastmath=True)
def column_sums(d, out):
    out[:] = ZERO
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            out[j] += d[i, j]


@njit(fastmath=True)
def softmax(scores, d, y):
    """The mean loss; d becomes its gradient."""
    rows, columns = scores.shape
    part, total = ONE / f32(rows), ZERO
    for i in range(rows):
        top = scores[i, 0]
        for j in range(1, columns):
            top = max(top, scores[i, j])
        whole = ZERO
        for j in range(columns):
            d[i, j] = np.exp(scores[i, j] - top)
            whole += d[i, j]
        total += np.log(whole) - (scores[i, y[i]] - top)
        scale = part / whole
        for j in range(columns):
            d[i, j] *= scale
        d[i, y[i]] -= part
    return total * part


@njit(fastmath=True)
def update(flat, gradients, speeds, lr):
    for i in range(flat.size):
        speed = SPEED * speeds[i] + gradients[i]
        speeds[i] = speed
        flat[i] -= lr * speed


@njit(fastmath=True)
def kept(position, seed, limit):
    """Whether dropout keeps an element: a hash of its position, 32 bits, is below the limit."""
    h = (position * 2654435761 + seed) & 0xFFFFFFFF
    h ^= h >> 16
    h = (h * 2246822507) & 0xFFFFFFFF
    h ^= h >> 13
    h = (h * 3266489909) & 0xFFFFFFFF
    return (h ^ (h >> 16)) < limit


@njit(fastmath=True)
def moments(z, b, scale, mean, var):
    """Add the bias and find scale, the reciprocal deviation; `mean` is the batch's."""
    rows, columns = z.shape
    part = ONE / f32(rows)
    mean[:] = ZERO
    var[:] = ZERO
    for i in range(rows):
        for j in range(columns):
            z[i, j] += b[j]
            mean[j] += z[i, j]
    for j in range(columns):
        mean[j] *= part
    for i in range(rows):
        for j in range(columns):
            away = z[i, j] - mean[j]
            var[j] += away * away
    for j in range(columns):
        var[j] *= part
        scale[j] = ONE / np.sqrt(var[j] + SMALL)


@njit(fastmath=True)
def normalise(z, b, gamma, beta, normal, statistics, draw):
    """Bias, batchnorm, relu and dropout in place."""
    scale, running_mean, running_var = statistics
    keep, seed = draw
    rows, columns = z.shape
    mean, var = np.empty(columns, f32), np.empty(columns, f32)
    moments(z, b, scale, mean, var)
    for j in range(columns):
        running_mean[j] = KEPT * running_mean[j] + NEW * mean[j]
        running_var[j] = KEPT * running_var[j] + NEW * var[j]
    larger, limit = ONE / keep, int(keep * 4294967296.0)
    for i in range(rows):
        for j in range(columns):
            normal[i, j] = (z[i, j] - mean[j]) * scale[j]
            z[i, j] = max(normal[i, j] * gamma[j] + beta[j], ZERO)
        if keep < ONE:
            for j in range(columns):
                z[i, j] = z[i, j] * larger if kept(i * columns + j, seed, limit) else ZERO


@njit(fastmath=True)
def normalise_back(d, h, gamma, normal, scale, keep, dgamma, dbeta):
    """Back through dropout, relu and batchnorm in place; h is 0 where either let nothing pass."""
    rows, columns = d.shape
    part, larger = ONE / f32(rows), ONE / keep
    dgamma[:] = ZERO
    dbeta[:] = ZERO
    for i in range(rows):
        for j in range(columns):
            passed = d[i, j] * larger if h[i, j] > ZERO else ZERO
            d[i, j] = passed
            dgamma[j] += passed * normal[i, j]
            dbeta[j] += passed
    for i in range(rows):
        for j in range(columns):
            centred = d[i, j] - part * dbeta[j] - normal[i, j] * (part * dgamma[j])
            d[i, j] = scale[j] * gamma[j] * centred
