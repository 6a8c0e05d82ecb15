"""The layers of Stanford's CS231n course, as functions on arrays.

The functions have the names and signatures of the course's assignments, so that a graph
can be read beside the code it grew from.  They contain no mathematics: a forward calls the
reference rule of the op or layer in `graphc.ops`, a backward its gradient rule.

Arrays are float32 or float64, whole numbers count as float64.  A cache holds the arrays that
it was given, not copies; neither forward nor backward writes to one, nor to an argument
(except the dictionaries `bn_param` and `dropout_param`, as documented there).  Arrays that do not
fit raise GraphError.  Images have their channels first, (N, C, H, W); a sequence is (N, T, D).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.base.docstrings import T, with_shared
from graphc.ir.build import Value
from graphc.ir.op import Array, Op
from graphc.kernels.philox import stream_of
from graphc.ops.conv_layer import ConvLayer
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.elementwise import Mul
from graphc.ops.gather import Gather
from graphc.ops.linalg import AffineLayer
from graphc.ops.losses.classes import SoftmaxLoss, SvmLoss
from graphc.ops.norm import BatchNorm
from graphc.ops.pool_layer import MaxPoolLayer, fixed
from graphc.ops.recurrent_cells import lstm_cell, rnn_cell
from graphc.ops.reduce import broadcast_to
from graphc.ops.row_norm import GroupNorm, LayerNorm
from graphc.ops.select import Relu
from graphc.ops.shape import reshape
from graphc.ops.slicing import concat
from graphc.ops.source import constant
from graphc.runtime import reference
from graphc.runtime.reference import (
    check_dout,
    check_range,
    check_sizes,
    checked_backward,
    composed_backward,
    composed_forward,
    evaluate,
    unpack,
)

Cache = tuple[Any, ...]
Param = MutableMapping[str, Any]
_BATCHNORM = ("x", "gamma", "beta", "running_mean", "running_var")
_WEIGHTED = ("x", "weight", "bias")

_BACKWARD = """
Parameters
----------
dout, dh, dnext_h, dnext_c, cache
    The gradient of each output, and the cache that the forward function returned.

Returns
-------
{arrays}
    {gradients}.
"""


def _gradients(*names: str) -> Callable[[T], T]:
    """Return the decorator of a backward function that returns arrays of these names."""
    arrays = ", ".join(["Array"] * len(names))
    return with_shared(_BACKWARD, arrays=arrays, gradients=", ".join(names))


def affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Return x @ w + b (N, M), with each sample flattened, and a cache.

    Parameters
    ----------
    x
        Samples (N, d1, ..., dk), flattened to (N, D).
    w, b
        The weight (D, M) and the bias (M,).

    Returns
    -------
    Array, Cache
        The output, and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> x, w, b = np.ones((2, 3)), np.ones((3, 4)), np.zeros(4)
    >>> out, cache = layers.affine_forward(x, w, b)
    >>> out.shape
    (2, 4)
    """
    arrays = dict(zip("xwb", reference.floats(x, w, b), strict=True))
    return reference.forward("affine_forward", AffineLayer(), arrays), (x, w, b)


@_gradients("dx in x's own shape", "dw", "db")
def affine_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `affine_forward`."""
    call, layer = "affine_backward", AffineLayer()
    dx, dw, db = checked_backward(call, layer, unpack(call, cache, 3), dout, _WEIGHTED)
    return dx, dw, db


def relu_forward(x: Array) -> tuple[Array, Array]:
    """Return max(x, 0), and a cache.

    Parameters
    ----------
    x
        An array of any shape.

    Returns
    -------
    Array, Array
        The output, and x as the cache.

    Examples
    --------
    >>> from graphc import layers
    >>> layers.relu_forward(np.array([-1.0, 2.0]))[0]
    array([0., 2.])
    """
    return reference.forward("relu_forward", Relu(), {"x": reference.floats(x)[0]}), x


@_gradients("dx")
def relu_backward(dout: Array, cache: Array) -> Array:
    """Return the gradient of `relu_forward`: dout where x > 0, else 0."""
    return checked_backward("relu_backward", Relu(), [cache], dout, ("x",))[0]


@with_shared(affine_forward.__doc__)
def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Return the relu of an affine layer (N, M), and a cache.

    Examples
    --------
    >>> from graphc import layers
    >>> layers.affine_relu_forward(np.ones((1, 2)), np.array([[1.0, -1.0]] * 2), np.zeros(2))[0]
    array([[2., 0.]])
    """
    hidden, affine_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(hidden)
    return out, (affine_cache, relu_cache)


@_gradients("dx", "dw", "db")
def affine_relu_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `affine_relu_forward`."""
    affine_cache, relu_cache = unpack("affine_relu_backward", cache, 2)
    return affine_backward(relu_backward(dout, relu_cache), affine_cache)


@with_shared(affine_forward.__doc__)
def batchnorm_forward(x: Array, gamma: Array, beta: Array, bn_param: Param) -> tuple[Array, Cache]:
    """Return x normalised by each feature, and a cache.

    Parameters
    ----------
    x
        Samples (N, D).
    gamma, beta
        The scale and the shift of each feature, (D,).
    bn_param
        `mode`, "train" or "test"; optional are `eps` (1e-5), `momentum` (0.9: the share of the old
        value that the running statistics keep), `running_mean` and `running_var` (zeros at first).
        A training call writes the new running statistics back to it.

    Examples
    --------
    >>> from graphc import layers
    >>> x = np.array([[1.0], [3.0]])
    >>> out, cache = layers.batchnorm_forward(x, np.ones(1), np.zeros(1), {"mode": "train"})
    >>> out.round(3).ravel()
    array([-1.,  1.])
    """
    return _batchnorm("batchnorm_forward", x, gamma, beta, bn_param)


def _batchnorm(
    call: str, x: Array, gamma: Array, beta: Array, bn_param: Param
) -> tuple[Array, Cache]:
    """Normalise rows or images; write the running statistics of a training call to bn_param."""
    mode = _mode(call, bn_param)
    layer = BatchNorm(float(bn_param.get("eps", 1e-5)), float(bn_param.get("momentum", 0.9)))
    x, gamma, beta = reference.floats(x, gamma, beta)
    zeros = np.zeros(x.shape[1:2], x.dtype)
    running = [
        np.asarray(bn_param.get(name, zeros)).astype(x.dtype, copy=False) for name in _BATCHNORM[3:]
    ]
    ins = [x, gamma, beta, *running]
    arrays = dict(zip(_BATCHNORM, ins, strict=True))
    out = reference.forward(call, layer, arrays, mode == "train")
    if mode == "train":
        graph = reference.expanded(layer, reference.types_of(ins), True)
        values = evaluate(graph, arrays, {}, 1)
        bn_param.update({name: values[new] for name, new in graph.updates.items()})
    return out, (layer, mode, *ins)


@_gradients("dx", "dgamma", "dbeta")
def batchnorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `batchnorm_forward`.

    In test mode the running statistics are constants.
    """
    return _batchnorm_backward("batchnorm_backward", dout, cache)


def _batchnorm_backward(call: str, dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    layer, mode, *ins = unpack(call, cache, 7)
    dx, dgamma, dbeta = checked_backward(call, layer, ins, dout, _BATCHNORM[:3], mode == "train")
    return dx, dgamma, dbeta


batchnorm_backward_alt = batchnorm_backward
"""The course's name for a second, shorter derivation; here both are the closed form."""


@with_shared(affine_forward.__doc__)
def dropout_forward(x: Array, dropout_param: Param) -> tuple[Array, Cache]:
    """Return inverted dropout of x, and a cache.

    The output is x * mask with mask = (u < p) / p in training, else x itself.  Masks are
    Philox4x32-10 words keyed by the seed and the number of draws (see `graphc.kernels.philox`),
    never NumPy's global generator: equal ones give the same mask.

    Parameters
    ----------
    x
        Samples (N, ...).
    dropout_param
        `p`, the probability to keep, above 0 and at most 1; `mode`, "train" or "test"; optional are
        `seed` and `draws` (0).  Without a seed it is 0, and each training call adds 1 to `draws` in
        the dictionary, so that the next mask differs.

    Examples
    --------
    >>> from graphc import layers
    >>> out, cache = layers.dropout_forward(np.ones((2, 3)), {"p": 0.5, "mode": "test"})
    >>> out.sum()
    np.float64(6.0)
    """
    mode = _mode("dropout_forward", dropout_param)
    p = dropout_param.get("p")
    if not isinstance(p, Real) or not 0 < float(p) <= 1:
        raise reference.fail(
            "dropout_forward", f"p is {p!r}, the probability to keep must be 0 < p <= 1", {}
        )
    (values,) = reference.floats(x)
    stream = stream_of("dropout")
    reference.infer("dropout_forward", Dropout(float(p), stream), {"x": values})
    if mode == "test":
        return values.copy(), (mode, None)
    draws = int(dropout_param.get("draws", 0))
    op = DropoutMask(values.shape, values.dtype.name, float(p), stream)
    mask = op.reference([np.asarray(int(dropout_param.get("seed", 0)) % 2**64), np.asarray(draws)])
    if "seed" not in dropout_param:
        dropout_param["draws"] = draws + 1
    return reference.forward("dropout_forward", Mul(), {"x": values, "mask": mask}), (mode, mask)


@_gradients("dx")
def dropout_backward(dout: Array, cache: Cache) -> Array:
    """Return the gradient of `dropout_forward`: dout * mask, or dout in test mode."""
    mode, mask = unpack("dropout_backward", cache, 2)
    if mode == "test":
        return np.array(reference.floats(dout)[0])
    mask, dout = reference.floats(mask, dout)
    check_dout("dropout_backward", dout, mask.shape)
    return reference.backward(Mul(), [mask, mask], dout, ("a",))[0]  # dx does not read x


def svm_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Return the hinge loss of scores, and its gradient.

    Parameters
    ----------
    x
        Scores (N, C).
    y
        Labels (N,), whole numbers from 0 to C - 1.

    Returns
    -------
    float, Array
        The mean over N, and dx.

    Examples
    --------
    >>> from graphc import layers
    >>> loss, dx = layers.svm_loss(np.zeros((2, 3)), np.array([0, 2]))
    >>> round(loss, 3)
    2.0
    """
    return _loss("svm_loss", SvmLoss(), x, y)


@with_shared(svm_loss.__doc__)
def softmax_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Return the softmax cross-entropy of scores, and its gradient.

    Examples
    --------
    >>> from graphc import layers
    >>> loss, dx = layers.softmax_loss(np.zeros((2, 3)), np.array([0, 2]))
    >>> round(loss, 3)
    1.099
    """
    return _loss("softmax_loss", SoftmaxLoss(), x, y)


def conv_forward_naive(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Cache]:
    """Return the images convolved by each filter (N, F, H', W'), and a cache.

    Parameters
    ----------
    x
        Images (N, C, H, W).
    w, b
        The filters (F, C, HH, WW) and the bias (F,).
    conv_param
        `stride`, the pixels between windows, and `pad`, the zeros around each image.

    Returns
    -------
    Array, Cache
        The output, and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> x, w, b = np.ones((1, 3, 4, 4)), np.ones((2, 3, 3, 3)), np.zeros(2)
    >>> out, cache = layers.conv_forward_naive(x, w, b, {"stride": 1, "pad": 1})
    >>> out[0, 0, 0]
    array([12., 18., 18., 12.])
    """
    call = "conv_forward_naive"
    stride, pad = (_setting(call, conv_param, name, n) for name, n in (("stride", 1), ("pad", 0)))
    layer = ConvLayer((stride, stride), ((pad, pad), (pad, pad)), (1, 1))
    arrays = dict(zip("xwb", reference.floats(x, w, b), strict=True))
    return reference.forward(call, layer, arrays), (layer, x, w, b)


@_gradients("dx", "dw", "db")
def conv_backward_naive(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `conv_forward_naive`."""
    layer, *ins = unpack("conv_backward_naive", cache, 4)
    dx, dw, db = checked_backward("conv_backward_naive", layer, ins, dout, _WEIGHTED)
    return dx, dw, db


def max_pool_forward_naive(x: Array, pool_param: Param) -> tuple[Array, Cache]:
    """Return the largest number of each window (N, C, H', W'), and a cache.

    Parameters
    ----------
    x
        Images (N, C, H, W).
    pool_param
        `pool_height` and `pool_width`, the size of a window, and `stride`.

    Returns
    -------
    Array, Cache
        The output, and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> pool = {"pool_height": 2, "pool_width": 2, "stride": 2}
    >>> layers.max_pool_forward_naive(np.arange(16.0).reshape(1, 1, 4, 4), pool)[0]
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    call = "max_pool_forward_naive"
    names = ("pool_height", "pool_width", "stride")
    *size, stride = (_setting(call, pool_param, name, 1) for name in names)
    layer = MaxPoolLayer(tuple(size), (stride, stride), ((0, 0), (0, 0)), (1, 1))
    return reference.forward(call, layer, {"x": reference.floats(x)[0]}), (layer, x)


@_gradients("dx")
def max_pool_backward_naive(dout: Array, cache: Cache) -> Array:
    """Return the gradient of `max_pool_forward_naive`; the first of equal maxima gets it all."""
    layer, x = unpack("max_pool_backward_naive", cache, 2)
    return checked_backward("max_pool_backward_naive", layer, [x], dout, ("x",))[0]


def spatial_batchnorm_forward(
    x: Array, gamma: Array, beta: Array, bn_param: Param
) -> tuple[Array, Cache]:
    """Return images normalised by each channel, over rows and pixels, and a cache.

    Parameters
    ----------
    x
        Images (N, C, H, W).
    gamma, beta
        The scale and the shift of each channel, (C,).
    bn_param
        As of `batchnorm_forward`; the running statistics are (C,).

    Returns
    -------
    Array, Cache
        The output, and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> x = np.array([1.0, 3.0]).reshape(1, 1, 1, 2)
    >>> out, _ = layers.spatial_batchnorm_forward(x, np.ones(1), np.zeros(1), {"mode": "train"})
    >>> out.round(3).ravel()
    array([-1.,  1.])
    """
    return _batchnorm("spatial_batchnorm_forward", x, gamma, beta, bn_param)


@_gradients("dx", "dgamma", "dbeta")
def spatial_batchnorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `spatial_batchnorm_forward`."""
    return _batchnorm_backward("spatial_batchnorm_backward", dout, cache)


@with_shared(affine_forward.__doc__)
def layernorm_forward(x: Array, gamma: Array, beta: Array, ln_param: Param) -> tuple[Array, Cache]:
    """Return x normalised by each row, and a cache.

    Parameters
    ----------
    x
        Samples (N, D).
    gamma, beta
        The scale and the shift of each feature, (D,).
    ln_param
        Optional is `eps` (1e-5).

    Examples
    --------
    >>> from graphc import layers
    >>> out, cache = layers.layernorm_forward(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), {})
    >>> out.round(3)
    array([[-1.,  1.]])
    """
    layer = LayerNorm(float(ln_param.get("eps", 1e-5)))
    arrays = dict(zip(layer.roles, reference.floats(x, gamma, beta), strict=True))
    return reference.forward("layernorm_forward", layer, arrays), (layer, x, gamma, beta)


@_gradients("dx", "dgamma", "dbeta")
def layernorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `layernorm_forward`."""
    layer, *ins = unpack("layernorm_backward", cache, 4)
    dx, dgamma, dbeta = checked_backward("layernorm_backward", layer, ins, dout, layer.roles)
    return dx, dgamma, dbeta


def spatial_groupnorm_forward(
    x: Array, gamma: Array, beta: Array, G: int, gn_param: Param
) -> tuple[Array, Cache]:
    """Return images normalised by each group of an image's channels, and a cache.

    Parameters
    ----------
    x
        Images (N, C, H, W).
    gamma, beta
        The scale and the shift of each channel, (1, C, 1, 1).
    G
        The number of groups, which divides C; a group is contiguous channels.
    gn_param
        Optional is `eps` (1e-5).

    Returns
    -------
    Array, Cache
        The output, and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> x, one = np.array([1.0, 3.0, 5.0, 9.0]).reshape(1, 4, 1, 1), np.ones((1, 4, 1, 1))
    >>> layers.spatial_groupnorm_forward(x, one, 0 * one, 2, {})[0].round(3).ravel()
    array([-1.,  1., -1.,  1.])
    """
    call = "spatial_groupnorm_forward"
    layer = GroupNorm(checked_whole(f"{call}: G", G), float(gn_param.get("eps", 1e-5)))
    values, *vectors = reference.floats(x, gamma, beta)
    arrays = {"x": values, "gamma": vectors[0].ravel(), "beta": vectors[1].ravel()}
    return reference.forward(call, layer, arrays), (layer, x, gamma, beta)


@_gradients("dx", "dgamma", "dbeta")
def spatial_groupnorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `spatial_groupnorm_forward`, dgamma and dbeta in gamma's shape."""
    layer, x, gamma, beta = unpack("spatial_groupnorm_backward", cache, 4)
    ins = [x, np.ravel(gamma), np.ravel(beta)]
    dx, *vectors = checked_backward("spatial_groupnorm_backward", layer, ins, dout, layer.roles)
    dgamma, dbeta = (vector.reshape(np.shape(gamma)) for vector in vectors)
    return dx, dgamma, dbeta


_RNN, _RNNS = "N D, N H, D H, H H, H", "N T D, N H, D H, H H, H"
_LSTM, _LSTMS = "N D, N H, N H, D 4H, H 4H, 4H", "N T D, N H, D 4H, H 4H, 4H"


def _rnn_step(x: Value, prev_h: Value, Wx: Value, Wh: Value, b: Value) -> Mapping[str, Value]:
    return {"next_h": rnn_cell(x, prev_h, Wx, Wh, b)}


def _lstm_step(
    x: Value, prev_h: Value, prev_c: Value, Wx: Value, Wh: Value, b: Value
) -> Mapping[str, Value]:
    states = lstm_cell(x, prev_h, prev_c, *map(_reordered, (Wx, Wh, b)))
    return dict(zip(("next_h", "next_c"), states, strict=True))


def _reordered(weight: Value) -> Value:
    """Return a weight with the gates of `lstm_cell`: i, f, g, o; the course has i, f, o, g."""
    width = fixed(weight.shape)[-1] // 4
    return concat([weight[..., k * width : (k + 1) * width] for k in (0, 1, 3, 2)], axis=-1)


def _rnn(x: Value, h0: Value, Wx: Value, Wh: Value, b: Value) -> Mapping[str, Value]:
    return _steps(_rnn_step, x, (h0,), Wx, Wh, b)


def _lstm(x: Value, h0: Value, Wx: Value, Wh: Value, b: Value) -> Mapping[str, Value]:
    c0 = broadcast_to(constant(x.builder, 0.0, x.dtype), h0.shape)
    return _steps(_lstm_step, x, (h0, c0), Wx, Wh, b)


def _steps(
    step: reference.Build, x: Value, states: Sequence[Value], *weights: Value
) -> Mapping[str, Value]:
    found = []
    for t in range(fixed(x.shape)[1]):
        states = list(step(x[:, t], *states, *weights).values())
        found.append(reshape(states[0], (x.shape[0], 1, states[0].shape[1])))
    return {"h": concat(found, axis=1)}


def rnn_step_forward(
    x: Array, prev_h: Array, Wx: Array, Wh: Array, b: Array
) -> tuple[Array, Cache]:
    """Return the next state tanh(x @ Wx + prev_h @ Wh + b), and a cache.

    Parameters
    ----------
    x
        The input of the step, (N, D).
    prev_h
        The state before the step, (N, H).
    Wx, Wh, b
        The weights (D, H) and (H, H), and the bias (H,).

    Returns
    -------
    Array, Cache
        The next state (N, H), and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> x, h, b = np.ones((2, 3)), np.zeros((2, 4)), np.zeros(4)
    >>> Wx, Wh = np.ones((3, 4)), np.ones((4, 4))
    >>> layers.rnn_step_forward(x, h, Wx, Wh, b)[0].shape
    (2, 4)
    """
    (next_h,), cache = composed_forward("rnn_step_forward", _rnn_step, _RNN, (x, prev_h, Wx, Wh, b))
    return next_h, cache


@_gradients("dx", "dprev_h", "dWx", "dWh", "db")
def rnn_step_backward(dnext_h: Array, cache: Cache) -> tuple[Array, ...]:
    """Return the gradients of `rnn_step_forward`."""
    return composed_backward("rnn_step_backward", _rnn_step, cache, dnext_h)


def rnn_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Cache]:
    """Return the states of a recurrent network after each step, and a cache.

    Parameters
    ----------
    x
        The input (N, T, D) of T steps.
    h0
        The state before the first step, (N, H).
    Wx, Wh, b
        The weights (D, H) and (H, H), and the bias (H,).

    Returns
    -------
    Array, Cache
        The states (N, T, H), and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> x, h, b = np.ones((2, 5, 3)), np.zeros((2, 4)), np.zeros(4)
    >>> Wx, Wh = np.ones((3, 4)), np.ones((4, 4))
    >>> layers.rnn_forward(x, h, Wx, Wh, b)[0].shape
    (2, 5, 4)
    """
    (h,), cache = composed_forward("rnn_forward", _rnn, _RNNS, (x, h0, Wx, Wh, b))
    return h, cache


@_gradients("dx", "dh0", "dWx", "dWh", "db")
def rnn_backward(dh: Array, cache: Cache) -> tuple[Array, ...]:
    """Return the gradients of `rnn_forward`, through all steps."""
    return composed_backward("rnn_backward", _rnn, cache, dh)


def lstm_step_forward(
    x: Array, prev_h: Array, prev_c: Array, Wx: Array, Wh: Array, b: Array
) -> tuple[Array, Array, Cache]:
    """Return the next states of an LSTM, and a cache.

    The weights have the gates input, forget, output and cell side by side, in this order.

    Parameters
    ----------
    x
        The input of the step, (N, D).
    prev_h, prev_c
        The states before the step, (N, H).
    Wx, Wh, b
        The weights (D, 4H) and (H, 4H), and the bias (4H,).

    Returns
    -------
    Array, Array, Cache
        The next h and c, (N, H) each, and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> x, h, b = np.ones((2, 3)), np.zeros((2, 4)), np.zeros(16)
    >>> Wx, Wh = np.ones((3, 16)), np.ones((4, 16))
    >>> layers.lstm_step_forward(x, h, h, Wx, Wh, b)[0].shape
    (2, 4)
    """
    arrays = x, prev_h, prev_c, Wx, Wh, b
    (next_h, next_c), cache = composed_forward("lstm_step_forward", _lstm_step, _LSTM, arrays)
    return next_h, next_c, cache


@_gradients("dx", "dprev_h", "dprev_c", "dWx", "dWh", "db")
def lstm_step_backward(dnext_h: Array, dnext_c: Array, cache: Cache) -> tuple[Array, ...]:
    """Return the gradients of `lstm_step_forward`."""
    return composed_backward("lstm_step_backward", _lstm_step, cache, dnext_h, dnext_c)


def lstm_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Cache]:
    """Return the states h of an LSTM after each step, and a cache; the first cell state is 0.

    Parameters
    ----------
    x
        The input (N, T, D) of T steps.
    h0
        The state before the first step, (N, H).
    Wx, Wh, b
        The weights (D, 4H) and (H, 4H), and the bias (4H,).

    Returns
    -------
    Array, Cache
        The states h (N, T, H), and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> x, h, b = np.ones((2, 5, 3)), np.zeros((2, 4)), np.zeros(16)
    >>> Wx, Wh = np.ones((3, 16)), np.ones((4, 16))
    >>> layers.lstm_forward(x, h, Wx, Wh, b)[0].shape
    (2, 5, 4)
    """
    (h,), cache = composed_forward("lstm_forward", _lstm, _LSTMS, (x, h0, Wx, Wh, b))
    return h, cache


@_gradients("dx", "dh0", "dWx", "dWh", "db")
def lstm_backward(dh: Array, cache: Cache) -> tuple[Array, ...]:
    """Return the gradients of `lstm_forward`, through all steps."""
    return composed_backward("lstm_backward", _lstm, cache, dh)


def word_embedding_forward(x: Array, W: Array) -> tuple[Array, Cache]:
    """Return the rows of W that x names (N, T, D), and a cache.

    Parameters
    ----------
    x
        The numbers of words (N, T), whole numbers from 0 to V - 1.
    W
        A vector for each word, (V, D).

    Returns
    -------
    Array, Cache
        The output, and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> layers.word_embedding_forward(np.array([[0, 2]]), np.eye(3))[0].shape
    (1, 2, 3)
    """
    (vectors,), words = reference.floats(W), np.asarray(x)
    arrays = {"W": vectors, "x": words}
    reference.infer("word_embedding_forward", Gather(), arrays)
    check_range("word_embedding_forward", "word", words, (len(vectors), "words"), arrays)
    return reference.forward("word_embedding_forward", Gather(), arrays), (x, W)


@_gradients("dW")
def word_embedding_backward(dout: Array, cache: Cache) -> Array:
    """Return the gradient of `word_embedding_forward`: a word's rows of dout are added up."""
    x, W = unpack("word_embedding_backward", cache, 2)
    vectors, dout = reference.floats(W, dout)
    check_dout("word_embedding_backward", dout, (*np.shape(x), vectors.shape[1]))
    return reference.backward(Gather(), [vectors, np.asarray(x)], dout, ("x",))[0]


def temporal_affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Return x @ w + b of each step (N, T, M), and a cache.

    Parameters
    ----------
    x
        A sequence (N, T, D).
    w, b
        The weight (D, M) and the bias (M,).

    Returns
    -------
    Array, Cache
        The output, and the cache for the backward function.

    Examples
    --------
    >>> from graphc import layers
    >>> layers.temporal_affine_forward(np.ones((2, 5, 3)), np.ones((3, 4)), np.zeros(4))[0].shape
    (2, 5, 4)
    """
    arrays = dict(zip("xwb", reference.floats(x, w, b), strict=True))
    check_sizes("temporal_affine_forward", arrays, "N T D, D M, M")
    return reference.forward("temporal_affine_forward", AffineLayer(True), arrays), (x, w, b)


@_gradients("dx", "dw", "db")
def temporal_affine_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `temporal_affine_forward`."""
    call, layer = "temporal_affine_backward", AffineLayer(True)
    dx, dw, db = checked_backward(call, layer, unpack(call, cache, 3), dout, _WEIGHTED)
    return dx, dw, db


def temporal_softmax_loss(x: Array, y: Array, mask: Array) -> tuple[float, Array]:
    """Return the softmax cross-entropy of the steps that count, and its gradient.

    Parameters
    ----------
    x
        Scores (N, T, V).
    y
        Labels (N, T), whole numbers from 0 to V - 1.
    mask
        Whether each step counts, (N, T).

    Returns
    -------
    float, Array
        The sum over the steps that count, divided by N, and dx.

    Examples
    --------
    >>> from graphc import layers
    >>> y, mask = np.zeros((1, 2), int), np.array([[True, False]])
    >>> round(layers.temporal_softmax_loss(np.zeros((1, 2, 3)), y, mask)[0], 3)
    1.099
    """
    call, arrays = "temporal_softmax_loss", {"x": x, "y": y, "mask": mask}
    scores, labels, counted = check_sizes(call, arrays, "N T V, N T, N T")
    rows, flat = max(len(scores), 1), scores.reshape(labels.size, scores.shape[2])
    loss, dx = _loss(call, SoftmaxLoss("sum"), flat, labels.ravel(), counted.ravel(), 1 / rows)
    return loss, dx.reshape(scores.shape)


def _loss(
    call: str, layer: Op, x: Array, y: Array, weight: Array | None = None, share: float = 1.0
) -> tuple[float, Array]:
    """Return a share of a loss and its gradient; raise GraphError for labels out of range."""
    (scores,) = reference.floats(x)
    labels = np.asarray(y)
    if labels.dtype.kind in "iu":
        labels = labels.astype(np.int64)
    more = {} if weight is None else {"mask": weight.astype(scores.dtype)}
    arrays = {"x": scores, "y": labels, **more}
    reference.infer(call, layer, arrays)
    if not scores.size:
        raise reference.fail(call, "there are no scores to take the mean of", arrays)
    check_range(call, "label", labels, (scores.shape[1], "classes"), arrays)
    loss = reference.forward(call, layer, arrays)
    ins, dout = list(arrays.values()), np.full((), share, scores.dtype)
    return float(loss) * share, reference.backward(layer, ins, dout, ("scores",))[0]


def _mode(call: str, param: Param) -> str:
    """Return "train" or "test"; raise GraphError for anything else."""
    mode = param.get("mode")
    if mode not in ("train", "test"):
        raise reference.fail(call, f"mode is {mode!r}, it must be 'train' or 'test'", {})
    return str(mode)


def _setting(call: str, param: Param, name: str, least: int) -> int:
    """Return a whole number of a dictionary; raise GraphError unless it is at least `least`."""
    return checked_whole(f"{call}: {name}", param.get(name), least)
