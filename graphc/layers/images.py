"""The course's layers of images: convolution, max pool, and normalisation by channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.base.docstrings import with_shared
from graphc.ir.op import Array
from graphc.layers.call import (
    CACHED,
    Cache,
    Param,
    backward,
    count_in,
    eps_in,
    floats,
    forward,
    returns_gradients,
)
from graphc.layers.rows import batchnorm
from graphc.ops.conv_layer import ConvLayer
from graphc.ops.norm import BatchNorm
from graphc.ops.pool_layer import MaxPoolLayer
from graphc.ops.row_norm import GroupNorm

_IMAGES = f"""
Parameters
----------
x
    Images (N, C, H, W).
{CACHED}
"""


@with_shared(_IMAGES)
def conv_forward_naive(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Cache]:
    """Return the images convolved by each filter (N, F, H', W'), and a cache.

    Parameters
    ----------
    w, b
        The filters (F, C, HH, WW) and the bias (F,).
    conv_param
        `stride`, the pixels between windows, and `pad`, the zeros around each image.

    Examples
    --------
    >>> x, w, b = np.ones((1, 3, 4, 4)), np.ones((2, 3, 3, 3)), np.zeros(2)
    >>> out, cache = gc.layers.conv_forward_naive(x, w, b, {"stride": 1, "pad": 1})
    >>> out[0, 0, 0]
    array([12., 18., 18., 12.])
    """
    call = "conv_forward_naive"
    stride, pad = count_in(call, conv_param, "stride"), count_in(call, conv_param, "pad", 0)
    layer = ConvLayer((stride, stride), ((pad, pad), (pad, pad)), (1, 1))
    return forward(call, layer, floats(call, x=x, w=w, b=b))


@returns_gradients("dx", "dw", "db")
def conv_backward_naive(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `conv_forward_naive`."""
    return backward("conv_backward_naive", ConvLayer, cache, dout)


@with_shared(_IMAGES)
def max_pool_forward_naive(x: Array, pool_param: Param) -> tuple[Array, Cache]:
    """Return the largest number of each window (N, C, H', W'), and a cache.

    Parameters
    ----------
    pool_param
        `pool_height` and `pool_width`, the size of a window, and `stride`.

    Examples
    --------
    >>> pool = {"pool_height": 2, "pool_width": 2, "stride": 2}
    >>> gc.layers.max_pool_forward_naive(np.arange(16.0).reshape(1, 1, 4, 4), pool)[0]
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    call, names = "max_pool_forward_naive", ("pool_height", "pool_width", "stride")
    height, width, stride = (count_in(call, pool_param, name) for name in names)
    layer = MaxPoolLayer((height, width), (stride, stride), ((0, 0), (0, 0)), (1, 1))
    return forward(call, layer, floats(call, x=x))


@returns_gradients("dx")
def max_pool_backward_naive(dout: Array, cache: Cache) -> Array:
    """Return the gradient of `max_pool_forward_naive`; the first of equal maxima gets it all."""
    return np.asarray(backward("max_pool_backward_naive", MaxPoolLayer, cache, dout)[0])


@with_shared(_IMAGES)
def spatial_batchnorm_forward(
    x: Array, gamma: Array, beta: Array, bn_param: Param
) -> tuple[Array, Cache]:
    """Return images normalised by each channel, over rows and pixels, and a cache.

    Parameters
    ----------
    gamma, beta
        The scale and the shift of each channel, (C,).
    bn_param
        As of `batchnorm_forward`; the running statistics are (C,).

    Examples
    --------
    >>> x = np.array([1.0, 3.0]).reshape(1, 1, 1, 2)
    >>> out, _ = gc.layers.spatial_batchnorm_forward(x, np.ones(1), np.zeros(1), {"mode": "train"})
    >>> out.round(3).ravel()
    array([-1.,  1.])
    """
    return batchnorm("spatial_batchnorm_forward", x, gamma, beta, bn_param)


@returns_gradients("dx", "dgamma", "dbeta")
def spatial_batchnorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `spatial_batchnorm_forward`."""
    return backward("spatial_batchnorm_backward", BatchNorm, cache, dout, of=3)


@dataclass(frozen=True)
class _GroupCache(Cache):
    """The cache of a group normalisation, with gamma and beta as vectors."""

    shape: tuple[int, ...] = ()
    """The shape in which gamma and beta were given."""


@with_shared(_IMAGES)
def spatial_groupnorm_forward(
    x: Array, gamma: Array, beta: Array, G: int, gn_param: Param
) -> tuple[Array, Cache]:
    """Return images normalised by each group of an image's channels, and a cache.

    Parameters
    ----------
    gamma, beta
        The scale and the shift of each channel, (1, C, 1, 1).
    G
        The number of groups, which divides C; a group is contiguous channels.
    gn_param
        Optional is `eps` (1e-5).

    Examples
    --------
    >>> x, one = np.array([1.0, 3.0, 5.0, 9.0]).reshape(1, 4, 1, 1), np.ones((1, 4, 1, 1))
    >>> gc.layers.spatial_groupnorm_forward(x, one, 0 * one, 2, {})[0].round(3).ravel()
    array([-1.,  1., -1.,  1.])
    """
    call = "spatial_groupnorm_forward"
    layer = GroupNorm(count_in(call, {"G": G}, "G"), eps_in(call, gn_param))
    given = floats(call, x=x, gamma=gamma, beta=beta)
    vectors = {name: given[name].ravel() for name in ("gamma", "beta")}
    out, cache = forward(call, layer, given | vectors)
    return out, _GroupCache(layer, cache.ins, shape=given["gamma"].shape)


@returns_gradients("dx", "dgamma", "dbeta")
def spatial_groupnorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `spatial_groupnorm_forward`, dgamma and dbeta in gamma's shape."""
    dx, *vectors = backward("spatial_groupnorm_backward", GroupNorm, cache, dout)
    assert isinstance(cache, _GroupCache)
    dgamma, dbeta = (vector.reshape(cache.shape) for vector in vectors)
    return dx, dgamma, dbeta
