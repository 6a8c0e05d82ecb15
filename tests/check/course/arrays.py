"""The course's layers as another student writes them: whole arrays, views, einsum; right."""

# Students unpack more than they use, and draw from the global generator:
# ruff: noqa: NPY002

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def conv_forward(x: Any, w: Any, b: Any, conv_param: Any) -> Any:
    s, p = conv_param["stride"], conv_param["pad"]
    padded = np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)])
    views = sliding_window_view(padded, w.shape[2:], axis=(2, 3))[:, :, ::s, ::s]
    out = np.einsum("nchwij,fcij->nfhw", views, w) + b[None, :, None, None]
    return out, (views, padded.shape, w, s, p)


def conv_backward(dout: Any, cache: Any) -> Any:
    views, shape, w, s, p = cache
    db = dout.sum((0, 2, 3))
    dw = np.einsum("nfhw,nchwij->fcij", dout, views)
    dpadded = np.zeros(shape)
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            rows = slice(i, i + s * dout.shape[2], s)
            columns = slice(j, j + s * dout.shape[3], s)
            dpadded[:, :, rows, columns] += np.einsum("nfhw,fc->nchw", dout, w[:, :, i, j])
    dx = dpadded[:, :, p : shape[2] - p, p : shape[3] - p]
    return dx, dw, db


def max_pool_forward(x: Any, pool_param: Any) -> Any:
    size, s = (pool_param["pool_height"], pool_param["pool_width"]), pool_param["stride"]
    views = sliding_window_view(x, size, axis=(2, 3))[:, :, ::s, ::s]
    return views.max(axis=(4, 5)), (x, size, s)


def max_pool_backward(dout: Any, cache: Any) -> Any:
    x, (height, width), s = cache
    dx = np.zeros(x.shape)
    for i in range(dout.shape[2]):
        for j in range(dout.shape[3]):
            where = np.s_[:, :, i * s : i * s + height, j * s : j * s + width]
            window = x[where]
            hit = window == window.max(axis=(2, 3), keepdims=True)
            share = hit / hit.sum(axis=(2, 3), keepdims=True)
            dx[where] += share * dout[:, :, i, j, None, None]
    return dx


def layernorm_forward(x: Any, gamma: Any, beta: Any, ln_param: Any) -> Any:
    xt = x.T
    mean, var = xt.mean(0), xt.var(0)
    inv = 1 / np.sqrt(var + ln_param.get("eps", 1e-5))
    xhat = ((xt - mean) * inv).T
    return xhat * gamma + beta, (xhat, inv[:, None], gamma)


def layernorm_backward(dout: Any, cache: Any) -> Any:
    xhat, inv, gamma = cache
    g = dout * gamma
    dx = inv * (g - g.mean(1, keepdims=True) - xhat * (g * xhat).mean(1, keepdims=True))
    return dx, np.einsum("nd,nd->d", dout, xhat), np.einsum("nd->d", dout)


def _moments(x: Any, bn_param: Any, axes: Any) -> Any:
    mean, var = x.mean(axes), x.var(axes)
    keep = bn_param.get("momentum", 0.9)
    for name, new in (("running_mean", mean), ("running_var", var)):
        bn_param[name] = keep * bn_param.get(name, 0 * new) + (1 - keep) * new
    return mean, var


def batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: Any) -> Any:
    if bn_param["mode"] == "train":
        mean, var = _moments(x, bn_param, 0)
    else:
        mean, var = bn_param["running_mean"], bn_param["running_var"]
    inv = (var + bn_param.get("eps", 1e-5)) ** -0.5
    xhat = (x - mean) * inv
    return xhat * gamma + beta, (xhat, inv, gamma)


def batchnorm_backward(dout: Any, cache: Any) -> Any:
    xhat, inv, gamma = cache
    n = len(dout)
    dgamma, dbeta = np.sum(dout * xhat, 0), np.sum(dout, 0)
    dx = gamma * inv / n * (n * dout - dbeta - xhat * dgamma)
    return dx, dgamma, dbeta


def spatial_batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: Any) -> Any:
    axes = (0, 2, 3)
    if bn_param["mode"] == "train":
        mean, var = _moments(x, bn_param, axes)
    else:
        mean, var = bn_param["running_mean"], bn_param["running_var"]
    inv = 1 / np.sqrt(var + bn_param.get("eps", 1e-5))
    xhat = (x - mean[:, None, None]) * inv[:, None, None]
    return xhat * gamma[:, None, None] + beta[:, None, None], (xhat, inv, gamma)


def spatial_batchnorm_backward(dout: Any, cache: Any) -> Any:
    xhat, inv, gamma = cache
    axes = (0, 2, 3)
    dbeta = dout.sum(axes)
    dgamma = (dout * xhat).sum(axes)
    count = dout.size / dout.shape[1]
    slope = dout - dbeta[:, None, None] / count - xhat * dgamma[:, None, None] / count
    return (gamma * inv)[:, None, None] * slope, dgamma, dbeta


def spatial_groupnorm_forward(x: Any, gamma: Any, beta: Any, G: Any, gn_param: Any) -> Any:
    rows = x.reshape(x.shape[0] * G, -1)
    centred = rows - rows.mean(1, keepdims=True)
    inv = 1 / np.sqrt((centred**2).mean(1, keepdims=True) + gn_param.get("eps", 1e-5))
    xhat = centred * inv
    return xhat.reshape(x.shape) * gamma + beta, (xhat, inv, gamma)


def spatial_groupnorm_backward(dout: Any, cache: Any) -> Any:
    xhat, inv, gamma = cache
    g = (dout * gamma).reshape(xhat.shape)
    slope = g - g.mean(1, keepdims=True) - xhat * (g * xhat).mean(1, keepdims=True)
    dgamma = np.einsum("nchw,nchw->c", dout, xhat.reshape(dout.shape)).reshape(gamma.shape)
    dbeta = np.einsum("nchw->c", dout).reshape(gamma.shape)
    return (inv * slope).reshape(dout.shape), dgamma, dbeta


def rnn_step_forward(x: Any, prev_h: Any, Wx: Any, Wh: Any, b: Any) -> Any:
    pre = np.hstack([x, prev_h]) @ np.vstack([Wx, Wh]) + b
    return np.tanh(pre), [x, prev_h, Wx, Wh, pre]


def rnn_step_backward(dnext_h: Any, cache: Any) -> Any:
    x, prev_h, Wx, Wh, pre = cache
    da = dnext_h / np.cosh(pre) ** 2
    return [da @ Wx.T, da @ Wh.T, x.T @ da, prev_h.T @ da, np.ones(len(x)) @ da]


def rnn_forward(x: Any, h0: Any, Wx: Any, Wh: Any, b: Any) -> Any:
    states = [h0]
    for xt in x.swapaxes(0, 1):
        states.append(np.tanh(xt @ Wx + states[-1] @ Wh + b))
    return np.stack(states[1:], axis=1), (x, states, Wx, Wh)


def rnn_backward(dh: Any, cache: Any) -> Any:
    x, states, Wx, Wh = cache
    das, flow = [], 0
    for t in range(x.shape[1] - 1, -1, -1):
        da = (dh[:, t] + flow) * (1 - states[t + 1] ** 2)
        flow = da @ Wh.T
        das.insert(0, da)
    da = np.stack(das, axis=1)
    before = np.stack(states[:-1], axis=1)
    dWx, dWh = np.tensordot(x, da, ((0, 1), (0, 1))), np.tensordot(before, da, ((0, 1), (0, 1)))
    return da @ Wx.T, flow, dWx, dWh, da.sum((0, 1))


def _gates(a: Any) -> Any:
    i, f, o, g = np.split(a, 4, axis=1)
    return [(1 + np.tanh(k / 2)) / 2 for k in (i, f, o)] + [np.tanh(g)]


def lstm_step_forward(x: Any, prev_h: Any, prev_c: Any, Wx: Any, Wh: Any, b: Any) -> Any:
    i, f, o, g = _gates(x @ Wx + prev_h @ Wh + b)
    c = prev_c * f + g * i
    t = np.tanh(c)
    return o * t, c, (x, prev_h, prev_c, Wx, Wh, (i, f, o, g), t)


def lstm_step_backward(dnext_h: Any, dnext_c: Any, cache: Any) -> Any:
    x, h, c, Wx, Wh, (i, f, o, g), t = cache
    dc = dnext_c + dnext_h * o * (1 - t * t)
    outer = np.concatenate([dc * g, dc * c, dnext_h * t, dc * i], axis=1)
    inner = np.concatenate([i * (1 - i), f * (1 - f), o * (1 - o), 1 - g * g], axis=1)
    da = outer * inner
    return da @ Wx.T, da @ Wh.T, dc * f, x.T @ da, h.T @ da, da.sum(0)


def lstm_forward(x: Any, h0: Any, Wx: Any, Wh: Any, b: Any) -> Any:
    h, c, out, caches = h0, 0 * h0, [], []
    for t in range(x.shape[1]):
        h, c, cache = lstm_step_forward(x[:, t], h, c, Wx, Wh, b)
        out.append(h)
        caches.append(cache)
    return np.transpose(out, (1, 0, 2)), caches


def lstm_backward(dh: Any, cache: Any) -> Any:
    dxs, total, flow, dc = [], [0, 0, 0], 0, 0
    for t, step in reversed(list(enumerate(cache))):
        dx, flow, dc, *params = lstm_step_backward(dh[:, t] + flow, dc, step)
        dxs.append(dx)
        total = [a + b for a, b in zip(total, params, strict=True)]
    return np.stack(dxs[::-1], axis=1), flow, *total


def word_embedding_forward(x: Any, W: Any) -> Any:
    return W[x], (x, W.shape)


def word_embedding_backward(dout: Any, cache: Any) -> Any:
    x, shape = cache
    dW = np.zeros(shape)
    np.add.at(dW, x, dout)
    return dW


def temporal_affine_forward(x: Any, w: Any, b: Any) -> Any:
    return np.einsum("ntd,dm->ntm", x, w) + b, (x, w)


def temporal_affine_backward(dout: Any, cache: Any) -> Any:
    x, w = cache
    dw = np.einsum("ntd,ntm->dm", x, dout)
    return np.einsum("ntm,dm->ntd", dout, w), dw, np.einsum("ntm->m", dout)


def temporal_softmax_loss(x: Any, y: Any, mask: Any) -> Any:
    N = len(x)
    top = x.max(-1, keepdims=True)
    logs = x - top - np.log(np.exp(x - top).sum(-1, keepdims=True))
    own = np.take_along_axis(logs, y[..., None], -1)[..., 0]
    dx = (np.exp(logs) - np.eye(x.shape[2])[y]) * mask[..., None] / N
    return -(own * mask).sum() / N, dx


def svm_loss(x: Any, y: Any) -> Any:
    hit = np.eye(x.shape[1], dtype=bool)[y]
    margins = np.where(hit, 0, x - x[hit][:, None] + 1.0)
    over = (margins > 0).astype(float)
    dx = over - hit * over.sum(axis=1, keepdims=True)
    return (margins * over).sum(axis=1).mean(), dx / len(x)


def softmax_loss(x: Any, y: Any) -> Any:
    rows = range(len(x))
    shifted = x - np.max(x, axis=1, keepdims=True)
    powers = np.exp(shifted)
    probs = powers / powers.sum(axis=1, keepdims=True)
    loss = (np.log(powers.sum(axis=1)) - shifted[rows, y]).mean()
    dx = probs.copy()
    dx[rows, y] -= 1
    return loss, dx / len(x)


def affine_forward(x: Any, w: Any, b: Any) -> Any:
    flat = x.reshape(x.shape[0], -1)
    return np.einsum("nd,dm->nm", flat, w) + b, (flat, x.shape, w)


def affine_backward(dout: Any, cache: Any) -> Any:
    flat, shape, w = cache
    dx = np.einsum("nm,dm->nd", dout, w).reshape(shape)
    return dx, np.einsum("nd,nm->dm", flat, dout), np.ones(len(dout)) @ dout


def relu_forward(x: Any) -> Any:
    return x * (x > 0), x > 0


def relu_backward(dout: Any, cache: Any) -> Any:
    return dout * cache


def affine_relu_forward(x: Any, w: Any, b: Any) -> Any:
    a, cache = affine_forward(x, w, b)
    return a.clip(0), (cache, np.sign(a.clip(0)))


def affine_relu_backward(dout: Any, cache: Any) -> Any:
    affine_cache, positive = cache
    return affine_backward(positive * dout, affine_cache)


def dropout_forward(x: Any, dropout_param: Any) -> Any:
    p = dropout_param["p"]
    if dropout_param["mode"] == "test":
        return x.copy(), None
    mask = np.random.binomial(1, p, x.shape)
    return mask * x / p, mask / p


def dropout_backward(dout: Any, cache: Any) -> Any:
    return dout.copy() if cache is None else cache * dout
