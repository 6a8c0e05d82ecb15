"""The course's layers of sequences: recurrent layers, words, and an affine map of each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.base.docstrings import with_shared
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.layers.call import (
    CACHED,
    Cache,
    backward,
    check_range,
    check_sizes,
    floats,
    forward,
    infer,
    numbers,
    returns_gradients,
)
from graphc.ops.gather import Gather
from graphc.ops.linalg import AffineLayer
from graphc.ops.loops.recurrent_cells import lstm_cell, rnn_cell
from graphc.ops.pool_layer import fixed
from graphc.ops.shape import reshape
from graphc.ops.slicing import concat
from graphc.ops.source import constant
from graphc.ops.sums import broadcast_to
from graphc.runtime.reference import Build, operand_names

_RECURRENT = """
Parameters
----------
x
    {x}
h0
    The state before the first step, (N, H).
prev_h
    The state before the step, (N, H).
prev_c
    The cell state before the step, (N, H).
Wx, Wh, b
    The weights (D, {H}) and (H, {H}), and the bias ({H},).

Returns
-------
Array, Cache
    {outputs}, and the cache for the backward function.
"""
_STEP = {"x": "The input of the step, (N, D).", "outputs": "The next state (N, H)"}
_STEPS = {"x": "The input (N, T, D) of T steps.", "outputs": "The states h (N, T, H)"}


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


def _steps(step: Build, x: Value, states: Sequence[Value], *weights: Value) -> Mapping[str, Value]:
    found = []
    for t in range(fixed(x.shape)[1]):
        states = list(step(x[:, t], *states, *weights).values())
        found.append(reshape(states[0], (x.shape[0], 1, states[0].shape[1])))
    return {"h": concat(found, axis=1)}


_SHAPES = {
    _rnn_step: "N D, N H, D H, H H, H",
    _lstm_step: "N D, N H, N H, D 4H, H 4H, 4H",
    _rnn: "N T D, N H, D H, H H, H",
    _lstm: "N T D, N H, D 4H, H 4H, 4H",
}
"""The shapes of what each function takes."""


def _forward(call: str, rule: Build, *arrays: Any) -> tuple[Any, ...]:
    given = floats(call, **dict(zip(operand_names(rule, len(arrays)), arrays, strict=True)))
    check_sizes(call, _SHAPES[rule], given)
    return forward(call, rule, given)


@with_shared(_RECURRENT, **_STEP, H="H")
def rnn_step_forward(
    x: Array, prev_h: Array, Wx: Array, Wh: Array, b: Array
) -> tuple[Array, Cache]:
    """Return the next state tanh(x @ Wx + prev_h @ Wh + b), and a cache.

    Examples
    --------
    >>> x, h, b = np.ones((2, 3)), np.zeros((2, 4)), np.zeros(4)
    >>> Wx, Wh = np.ones((3, 4)), np.ones((4, 4))
    >>> gc.layers.rnn_step_forward(x, h, Wx, Wh, b)[0].shape
    (2, 4)
    """
    return _forward("rnn_step_forward", _rnn_step, x, prev_h, Wx, Wh, b)


@returns_gradients("dx", "dprev_h", "dWx", "dWh", "db")
def rnn_step_backward(dnext_h: Array, cache: Cache) -> tuple[Array, ...]:
    """Return the gradients of `rnn_step_forward`."""
    return backward("rnn_step_backward", _rnn_step, cache, dnext_h)


@with_shared(_RECURRENT, **_STEPS, H="H")
def rnn_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Cache]:
    """Return the states of a recurrent network after each step, and a cache.

    Examples
    --------
    >>> x, h, b = np.ones((2, 5, 3)), np.zeros((2, 4)), np.zeros(4)
    >>> Wx, Wh = np.ones((3, 4)), np.ones((4, 4))
    >>> gc.layers.rnn_forward(x, h, Wx, Wh, b)[0].shape
    (2, 5, 4)
    """
    return _forward("rnn_forward", _rnn, x, h0, Wx, Wh, b)


@returns_gradients("dx", "dh0", "dWx", "dWh", "db")
def rnn_backward(dh: Array, cache: Cache) -> tuple[Array, ...]:
    """Return the gradients of `rnn_forward`, through all steps."""
    return backward("rnn_backward", _rnn, cache, dh)


@with_shared(_RECURRENT, **_STEP, H="4H")
def lstm_step_forward(
    x: Array, prev_h: Array, prev_c: Array, Wx: Array, Wh: Array, b: Array
) -> tuple[Array, Array, Cache]:
    """Return the next states of an LSTM, and a cache.

    The weights have the gates input, forget, output and cell side by side, in this order.

    Returns
    -------
    Array, Array, Cache
        The next h and c, (N, H) each, and the cache for the backward function.

    Examples
    --------
    >>> x, h, b = np.ones((2, 3)), np.zeros((2, 4)), np.zeros(16)
    >>> Wx, Wh = np.ones((3, 16)), np.ones((4, 16))
    >>> gc.layers.lstm_step_forward(x, h, h, Wx, Wh, b)[0].shape
    (2, 4)
    """
    return _forward("lstm_step_forward", _lstm_step, x, prev_h, prev_c, Wx, Wh, b)


@returns_gradients("dx", "dprev_h", "dprev_c", "dWx", "dWh", "db")
def lstm_step_backward(dnext_h: Array, dnext_c: Array, cache: Cache) -> tuple[Array, ...]:
    """Return the gradients of `lstm_step_forward`."""
    return backward("lstm_step_backward", _lstm_step, cache, dnext_h, dnext_c)


@with_shared(_RECURRENT, **_STEPS, H="4H")
def lstm_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Cache]:
    """Return the states h of an LSTM after each step, and a cache; the first cell state is 0.

    Examples
    --------
    >>> x, h, b = np.ones((2, 5, 3)), np.zeros((2, 4)), np.zeros(16)
    >>> Wx, Wh = np.ones((3, 16)), np.ones((4, 16))
    >>> gc.layers.lstm_forward(x, h, Wx, Wh, b)[0].shape
    (2, 5, 4)
    """
    return _forward("lstm_forward", _lstm, x, h0, Wx, Wh, b)


@returns_gradients("dx", "dh0", "dWx", "dWh", "db")
def lstm_backward(dh: Array, cache: Cache) -> tuple[Array, ...]:
    """Return the gradients of `lstm_forward`, through all steps."""
    return backward("lstm_backward", _lstm, cache, dh)


@with_shared(CACHED)
def word_embedding_forward(x: Array, W: Array) -> tuple[Array, Cache]:
    """Return the rows of W that x names (N, T, D), and a cache.

    Parameters
    ----------
    x
        The numbers of words (N, T), whole numbers from 0 to V - 1.
    W
        A vector for each word, (V, D).

    Examples
    --------
    >>> gc.layers.word_embedding_forward(np.array([[0, 2]]), np.eye(3))[0].shape
    (1, 2, 3)
    """
    call = "word_embedding_forward"
    given = {**floats(call, W=W), "x": numbers(call, "x", x)}
    infer(call, Gather(), given)
    check_range(call, "word", given["x"], (len(given["W"]), "words"), given)
    return forward(call, Gather(), given)


@returns_gradients("dW")
def word_embedding_backward(dout: Array, cache: Cache) -> Array:
    """Return the gradient of `word_embedding_forward`: a word's rows of dout are added up."""
    return np.asarray(backward("word_embedding_backward", Gather, cache, dout, of=1)[0])


@with_shared(CACHED)
def temporal_affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Return x @ w + b of each step (N, T, M), and a cache.

    Parameters
    ----------
    x
        A sequence (N, T, D).
    w, b
        The weight (D, M) and the bias (M,).

    Examples
    --------
    >>> gc.layers.temporal_affine_forward(np.ones((2, 5, 3)), np.ones((3, 4)), np.zeros(4))[0].shape
    (2, 5, 4)
    """
    call = "temporal_affine_forward"
    given = floats(call, x=x, w=w, b=b)
    check_sizes(call, "N T D, D M, M", given)
    return forward(call, AffineLayer(True), given)


@returns_gradients("dx", "dw", "db")
def temporal_affine_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of `temporal_affine_forward`."""
    return backward("temporal_affine_backward", AffineLayer, cache, dout)
