"""The layers of Stanford's CS231n course, as functions on arrays.

The functions have the names and signatures of the course's assignments, so that a graph
can be read beside the code it grew from.  They contain no mathematics: a forward calls the
reference rule of the op or layer in `graphc.ops`, a backward its gradient rule.

Arrays are float32 or float64, whole numbers count as float64.  A cache holds the arrays that
it was given, not copies; neither forward nor backward writes to one, nor to an argument
(except the dictionaries `bn_param` and `dropout_param`, as documented there).  Arrays that do not
fit raise GraphError.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from numbers import Real
from typing import Any

import numpy as np

from graphc.base.docstrings import T, with_shared
from graphc.ir.op import Array, Op
from graphc.kernels.philox import stream_of
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.elementwise import Mul
from graphc.ops.linalg import AffineLayer
from graphc.ops.losses.classes import SoftmaxLoss, SvmLoss
from graphc.ops.norm import BatchNorm
from graphc.ops.select import Relu
from graphc.runtime import reference
from graphc.runtime.reference import evaluate

Cache = tuple[Any, ...]
Param = MutableMapping[str, Any]

_BATCHNORM = ("x", "gamma", "beta", "running_mean", "running_var")

_FORWARD = with_shared("""
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
>>> out, cache = layers.{public}(x, w, b)
>>> out.shape
(2, 4)
""")
_BACKWARD = """
Parameters
----------
dout, cache
    The gradient of the output, and the cache that the forward function returned.

Returns
-------
{arrays}
    {gradients}.
"""
_LOSS = """
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
>>> loss, dx = layers.{public}(np.zeros((2, 3)), np.array([0, 2]))
>>> round(loss, 3)
{result}
"""


def _gradients(*names: str) -> Callable[[T], T]:
    """Return the decorator of a backward function that returns arrays of these names."""
    arrays = ", ".join(["Array"] * len(names))
    return with_shared(_BACKWARD, arrays=arrays, gradients=", ".join(names))


@_FORWARD
def affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Return x @ w + b (N, M), with each sample flattened, and a cache."""
    arrays = dict(zip("xwb", reference.floats(x, w, b), strict=True))
    return reference.forward("affine_forward", AffineLayer(), arrays), (x, w, b)


@_gradients("dx in x's own shape", "dw", "db")
def affine_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `affine_forward`."""
    x, w, b, dout = reference.floats(*_unpack("affine_backward", cache, 3), dout)
    _check_dout("affine_backward", dout, (len(x), w.shape[1]))
    dx, dw, db = reference.backward(AffineLayer(), [x, w, b], dout, ("x", "weight", "bias"))
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
    (values,) = reference.floats(x)
    return reference.forward("relu_forward", Relu(), {"x": values}), x


@_gradients("dx")
def relu_backward(dout: Array, cache: Array) -> Array:
    """Return the gradient of `relu_forward`: dout where x > 0, else 0."""
    x, dout = reference.floats(cache, dout)
    _check_dout("relu_backward", dout, x.shape)
    return reference.backward(Relu(), [x], dout, ("x",))[0]


@_FORWARD
def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Return the relu of an affine layer (N, M), and a cache."""
    hidden, affine_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(hidden)
    return out, (affine_cache, relu_cache)


@_gradients("dx", "dw", "db")
def affine_relu_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `affine_relu_forward`."""
    affine_cache, relu_cache = _unpack("affine_relu_backward", cache, 2)
    return affine_backward(relu_backward(dout, relu_cache), affine_cache)


@_FORWARD
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
    mode = _mode("batchnorm_forward", bn_param)
    layer = BatchNorm(float(bn_param.get("eps", 1e-5)), float(bn_param.get("momentum", 0.9)))
    x, gamma, beta = reference.floats(x, gamma, beta)
    zeros = np.zeros(x.shape[1:2], x.dtype)
    running = [
        np.asarray(bn_param.get(name, zeros)).astype(x.dtype, copy=False) for name in _BATCHNORM[3:]
    ]
    ins = [x, gamma, beta, *running]
    arrays = dict(zip(_BATCHNORM, ins, strict=True))
    out = reference.forward("batchnorm_forward", layer, arrays, mode == "train")
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
    layer, mode, *ins = _unpack("batchnorm_backward", cache, 7)
    *ins, dout = reference.floats(*ins, dout)
    _check_dout("batchnorm_backward", dout, ins[0].shape)
    dx, dgamma, dbeta = reference.backward(layer, ins, dout, _BATCHNORM[:3], mode == "train")
    return dx, dgamma, dbeta


batchnorm_backward_alt = batchnorm_backward
"""The course's name for a second, shorter derivation; here both are the closed form."""


@_FORWARD
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
    mode, mask = _unpack("dropout_backward", cache, 2)
    if mode == "test":
        return np.array(reference.floats(dout)[0])
    mask, dout = reference.floats(mask, dout)
    _check_dout("dropout_backward", dout, mask.shape)
    return reference.backward(Mul(), [mask, mask], dout, ("a",))[0]  # dx does not read x


@with_shared(_LOSS, result="2.0")
def svm_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Return the hinge loss of scores, and its gradient."""
    return _loss("svm_loss", SvmLoss(), x, y)


@with_shared(_LOSS, result="1.099")
def softmax_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Return the softmax cross-entropy of scores, and its gradient."""
    return _loss("softmax_loss", SoftmaxLoss(), x, y)


def _loss(call: str, layer: Op, x: Array, y: Array) -> tuple[float, Array]:
    """Return a loss and its gradient; raise GraphError for labels out of range."""
    (scores,) = reference.floats(x)
    labels = np.asarray(y)
    if labels.dtype.kind in "iu":
        labels = labels.astype(np.int64)
    arrays = {"x": scores, "y": labels}
    reference.infer(call, layer, arrays)
    if not scores.size:
        raise reference.fail(call, "there are no scores to take the mean of", arrays)
    classes = scores.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        worst = int(labels.min() if labels.min() < 0 else labels.max())
        raise reference.fail(
            call, f"label {worst} is not one of the {classes} classes, 0 to {classes - 1}", arrays
        )
    loss = reference.forward(call, layer, arrays)
    one = np.ones((), scores.dtype)
    return float(loss), reference.backward(layer, [scores, labels], one, ("scores",))[0]


def _mode(call: str, param: Param) -> str:
    """Return "train" or "test"; raise GraphError for anything else."""
    mode = param.get("mode")
    if mode not in ("train", "test"):
        raise reference.fail(call, f"mode is {mode!r}, it must be 'train' or 'test'", {})
    return str(mode)


def _unpack(call: str, cache: Any, parts: int) -> Cache:
    """Return the cache; raise GraphError unless it has that many parts."""
    if not isinstance(cache, tuple) or len(cache) != parts:
        raise reference.fail(call, "the cache is not one that the forward function returned", {})
    return cache


def _check_dout(call: str, dout: Array, shape: tuple[int, ...]) -> None:
    """Raise GraphError unless dout has the output's shape."""
    if dout.shape != shape:
        raise reference.fail(call, f"dout has shape {dout.shape}, the output has {shape}", {})
