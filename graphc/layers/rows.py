"""The course's layers of rows: affine maps, relu, normalisations and dropout."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from graphc.base.arguments import checked_number, checked_whole
from graphc.base.docstrings import with_shared
from graphc.ir.op import Array
from graphc.kernels.philox import stream_of
from graphc.layers.call import (
    CACHED,
    Cache,
    Param,
    backward,
    cache_of,
    eps_in,
    fail,
    floats,
    forward,
    infer,
    not_a_cache,
    returns_gradients,
    trains,
)
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.elementwise import Mul
from graphc.ops.linalg import AffineLayer
from graphc.ops.norm import BatchNorm
from graphc.ops.row_norm import LayerNorm
from graphc.ops.select import Relu
from graphc.runtime.reference import evaluate, expanded, types_of

_AFFINE = f"""
Parameters
----------
x
    Samples (N, d1, ..., dk), flattened to (N, D).
w, b
    The weight (D, M) and the bias (M,).
{CACHED}
"""
_NORM = f"""
Parameters
----------
x
    Samples (N, D).
gamma, beta
    The scale and the shift of each feature, (D,).
{CACHED}
"""


@with_shared(_AFFINE)
def affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, Any]:
    """Return x @ w + b (N, M), with each sample flattened, and (x, w, b) as the cache.

    Examples
    --------
    >>> x, w, b = np.ones((2, 3)), np.ones((3, 4)), np.zeros(4)
    >>> out, cache = gc.layers.affine_forward(x, w, b)
    >>> out.shape
    (2, 4)
    """
    out, _ = forward("affine_forward", AffineLayer(), floats("affine_forward", x=x, w=w, b=b))
    return out, (x, w, b)


@returns_gradients("dx in x's own shape", "dw", "db")
def affine_backward(dout: Array, cache: Any) -> tuple[Array, Array, Array]:
    """Return the gradients of `affine_forward`."""
    known = cache_of("affine_backward", AffineLayer(), cache, "x", "w", "b")
    return backward("affine_backward", AffineLayer, known, dout)


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
    >>> gc.layers.relu_forward(np.array([-1.0, 2.0]))[0]
    array([0., 2.])
    """
    return forward("relu_forward", Relu(), floats("relu_forward", x=x))[0], x


@returns_gradients("dx")
def relu_backward(dout: Array, cache: Array) -> Array:
    """Return the gradient of `relu_forward`: dout where x > 0, else 0."""
    known = cache_of("relu_backward", Relu(), (cache,), "x")
    (dx,) = backward("relu_backward", Relu, known, dout)
    return np.asarray(dx)


@with_shared(_AFFINE)
def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[Array, Any]:
    """Return the relu of an affine layer (N, M), and the caches of both.

    Examples
    --------
    >>> gc.layers.affine_relu_forward(np.ones((1, 2)), np.array([[1.0, -1.0]] * 2), np.zeros(2))[0]
    array([[2., 0.]])
    """
    hidden, affine_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(hidden)
    return out, (affine_cache, relu_cache)


@returns_gradients("dx", "dw", "db")
def affine_relu_backward(dout: Array, cache: Any) -> tuple[Array, Array, Array]:
    """Return the gradients of `affine_relu_forward`."""
    if not isinstance(cache, tuple) or len(cache) != 2:
        raise not_a_cache("affine_relu_backward")
    affine_cache, relu_cache = cache
    return affine_backward(relu_backward(dout, relu_cache), affine_cache)


@with_shared(_NORM)
def batchnorm_forward(x: Array, gamma: Array, beta: Array, bn_param: Param) -> tuple[Array, Cache]:
    """Return x normalised by each feature, and a cache.

    Parameters
    ----------
    bn_param
        `mode`, "train" or "test"; optional are `eps` (1e-5), `momentum` (0.9: the share of the old
        value that the running statistics keep), `running_mean` and `running_var` (zeros at first).
        A training call writes the new running statistics back to it.

    Examples
    --------
    >>> x = np.array([[1.0], [3.0]])
    >>> out, cache = gc.layers.batchnorm_forward(x, np.ones(1), np.zeros(1), {"mode": "train"})
    >>> out.round(3).ravel()
    array([-1.,  1.])
    """
    return batchnorm("batchnorm_forward", x, gamma, beta, bn_param)


def batchnorm(
    call: str, x: Array, gamma: Array, beta: Array, bn_param: Param
) -> tuple[Array, Cache]:
    """Normalise rows or images; write the running statistics of a training call to bn_param."""
    train, keep = trains(call, bn_param), bn_param.get("momentum", 0.9)
    keep = checked_number(f"{call}: momentum", keep, least=0, most=1)
    layer = BatchNorm(eps_in(call, bn_param), keep)
    given = floats(call, x=x, gamma=gamma, beta=beta)
    start = np.zeros(given["x"].shape[1:2])
    old = {name: bn_param.get(name, start) for name in ("running_mean", "running_var")}
    for name, array in floats(call, **old).items():
        given[name] = array.astype(given["x"].dtype, copy=False)
    if train and not given["x"].size:
        raise fail(call, "there are no rows to take the statistics of", given)
    out, cache = forward(call, layer, given, train)
    if train:
        graph = expanded(layer, types_of(cache.ins), train)
        values = evaluate(graph, given, {}, 1)
        bn_param.update({name: values[new] for name, new in graph.updates.items()})
    return out, cache


@returns_gradients("dx", "dgamma", "dbeta")
def batchnorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `batchnorm_forward`.

    In test mode the running statistics are constants.
    """
    return backward("batchnorm_backward", BatchNorm, cache, dout, of=3)


batchnorm_backward_alt = batchnorm_backward
"""The course's name for a second, shorter derivation; here both are the closed form."""


@with_shared(_NORM)
def layernorm_forward(x: Array, gamma: Array, beta: Array, ln_param: Param) -> tuple[Array, Cache]:
    """Return x normalised by each row, and a cache.

    Parameters
    ----------
    ln_param
        Optional is `eps` (1e-5).

    Examples
    --------
    >>> out, _ = gc.layers.layernorm_forward(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), {})
    >>> out.round(3)
    array([[-1.,  1.]])
    """
    call = "layernorm_forward"
    layer = LayerNorm(eps_in(call, ln_param))
    return forward(call, layer, floats(call, x=x, gamma=gamma, beta=beta))


@returns_gradients("dx", "dgamma", "dbeta")
def layernorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `layernorm_forward`."""
    return backward("layernorm_backward", LayerNorm, cache, dout)


@with_shared(CACHED)
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
    >>> out, cache = gc.layers.dropout_forward(np.ones((2, 3)), {"p": 0.5, "mode": "test"})
    >>> out.sum()
    np.float64(6.0)
    """
    call = "dropout_forward"
    train, p = trains(call, dropout_param), dropout_param.get("p")
    if not isinstance(p, Real) or not 0 < float(p) <= 1:
        raise fail(call, f"p is {p!r}, the probability to keep must be 0 < p <= 1")
    values, stream = floats(call, x=x)["x"], stream_of("dropout")
    infer(call, Dropout(float(p), stream), {"x": values})
    mask = np.ones_like(values)
    if train:
        seed, draws = (_whole(dropout_param, name) for name in ("seed", "draws"))
        op = DropoutMask(values.shape, values.dtype.name, float(p), stream)
        mask = op.reference([np.asarray(seed % 2**64), np.asarray(draws)])
        if "seed" not in dropout_param:
            dropout_param["draws"] = draws + 1
    return forward(call, Mul(), {"x": values, "mask": mask})


def _whole(param: Param, name: str) -> int:
    return checked_whole(f"dropout_forward: {name}", param.get(name, 0), None)


@returns_gradients("dx")
def dropout_backward(dout: Array, cache: Cache) -> Array:
    """Return the gradient of `dropout_forward`: dout * mask, or dout in test mode."""
    return np.asarray(backward("dropout_backward", Mul, cache, dout, of=1)[0])
