"""The course's layers as a student writes them, in plain NumPy; right, and on their own."""

from __future__ import annotations

from typing import Any

import numpy as np


def affine_forward(x: Any, w: Any, b: Any) -> Any:
    return x.reshape(len(x), -1) @ w + b, (x, w, b)


def affine_backward(dout: Any, cache: Any) -> Any:
    x, w, _ = cache
    dw = x.reshape(len(x), -1).T @ dout
    return (dout @ w.T).reshape(x.shape), dw, dout.sum(axis=0)


def relu_forward(x: Any) -> Any:
    return np.maximum(0, x), x


def relu_backward(dout: Any, cache: Any) -> Any:
    return dout * (cache > 0)


def affine_relu_forward(x: Any, w: Any, b: Any) -> Any:
    a, fc = affine_forward(x, w, b)
    return np.maximum(a, 0), (fc, a)


def affine_relu_backward(dout: Any, cache: Any) -> Any:
    fc, a = cache
    return affine_backward(dout * (a > 0), fc)


def batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: Any) -> Any:
    eps, momentum = bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9)
    mean, var = bn_param["running_mean"], bn_param["running_var"]
    if bn_param["mode"] == "test":
        return gamma * (x - mean) / np.sqrt(var + eps) + beta, None
    mu, sigma2 = x.mean(axis=0), x.var(axis=0)
    bn_param["running_mean"] = momentum * mean + (1 - momentum) * mu
    bn_param["running_var"] = momentum * var + (1 - momentum) * sigma2
    std = np.sqrt(sigma2 + eps)
    xhat = (x - mu) / std
    return gamma * xhat + beta, (xhat, std, gamma)


def batchnorm_backward(dout: Any, cache: Any) -> Any:
    xhat, std, gamma = cache
    n = len(dout)
    dgamma, dbeta = (dout * xhat).sum(axis=0), dout.sum(axis=0)
    return gamma / std * (dout - dbeta / n - xhat * dgamma / n), dgamma, dbeta


def dropout_forward(x: Any, dropout_param: Any) -> Any:
    p, mode = dropout_param["p"], dropout_param["mode"]
    if mode == "test":
        return x, (mode, None)
    mask = (GENERATOR.random(x.shape) < p) / p
    return x * mask, (mode, mask)


def dropout_backward(dout: Any, cache: Any) -> Any:
    mode, mask = cache
    return dout if mode == "test" else dout * mask


GENERATOR = np.random.default_rng(0)


def svm_loss(x: Any, y: Any) -> Any:
    rows = np.arange(len(x))
    margins = np.maximum(0, x - x[rows, y][:, None] + 1)
    margins[rows, y] = 0
    dx = (margins > 0).astype(float)
    dx[rows, y] -= dx.sum(axis=1)
    return margins.sum() / len(x), dx / len(x)


def softmax_loss(x: Any, y: Any) -> Any:
    rows = np.arange(len(x))
    shifted = x - x.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    dx = np.exp(log_p)
    dx[rows, y] -= 1
    return -log_p[rows, y].sum() / len(x), dx / len(x)
