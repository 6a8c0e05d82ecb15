"""Converters of normalisation, dropout, losses and optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod
from typing import Any

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.init import FromArray
from graphc.ir.op import Array
from graphc.ir.tensor_type import Dim
from graphc.onnx.call import (
    Call,
    Converter,
    NotSupported,
    Operand,
    Result,
    Weight,
    dtype_of,
    shortest,
)
from graphc.ops.norm import BatchNorm, BatchNormTrain, Normalize, feature_axes
from graphc.ops.row_norm import GroupNorm, LayerNorm, RmsNorm
from graphc.ops.shape import as_dtype
from graphc.ops.source import State


def _batchnorm(call: Call) -> Result:
    eps, decay = call.attribute("epsilon", 1e-5), call.attribute("momentum", 0.9)
    call.unless(spatial=1)
    x, gamma, beta = (call.value(i) for i in range(3))
    layer = _layer(call, x, gamma, beta, BatchNorm(eps, decay))
    if layer is not None:
        return [layer]
    if not _trains(call):
        return [x.builder.apply(Normalize(eps), x, call.value(3), call.value(4), gamma, beta)]
    axes = feature_axes(x.type.rank)
    average = gc.mean(x, axes, keepdims=True)
    variance = gc.mean((x - average) ** 2, axes)
    average = gc.reshape(average, variance.shape)
    running = [
        old * decay + new * (1 - decay)
        for old, new in ((call.value(3), average), (call.value(4), variance))
    ]
    return [x.builder.apply(BatchNormTrain(eps), x, gamma, beta), *running]


def _trains(call: Call) -> bool:
    if call.version >= 14:
        return bool(call.attribute("training_mode", 0))
    return len(call.outputs) > 1 and call.version >= 7


def _layer(call: Call, x: Value, gamma: Value, beta: Value, op: BatchNorm) -> Value | None:
    """Return a layer with running statistics as states, or None if the node needs other ops.

    A node needs them if it is run as written, if a result besides the first is read, or if the
    statistics are not initializers or constants, or are parameters already.
    """
    statistics = [call.operand(i) for i in (3, 4)]
    if call.scope.reading.as_written or any(call.is_read(i) for i in range(1, 5)):
        return None
    if not all(isinstance(s, (Weight, np.ndarray)) for s in statistics):
        return None
    states = [_state(call, i, operand) for i, operand in zip((3, 4), statistics, strict=True)]
    if not all(state.node.op.is_state for state in states):
        return None  # other nodes read them as parameters
    return x.builder.apply(op, x, gamma, beta, *states)


def _state(call: Call, position: int, operand: Operand) -> Value:
    """Return running statistics as a state of the net, which other nodes may read as well."""
    reading = call.scope.reading
    if id(operand) not in reading.made:
        array: Array = operand.array if isinstance(operand, Weight) else np.asarray(operand)
        kind = ("running_mean", "running_var")[position - 3]
        name = operand.name if isinstance(operand, Weight) else f"{call.name}.{kind}"
        b = reading.net.builder
        op = State(array.shape, array.dtype.name, FromArray.of(array))
        reading.made[id(operand)] = b.apply(op, name=b.unique(name))
        reading.kept.append(operand)
    return reading.made[id(operand)]


def _dropout(call: Call) -> Result:
    x = call.value(0)
    ratio = call.number(1, 0.5) if call.version >= 12 else call.attribute("ratio", 0.5)
    trains = bool(call.number(2, False)) if call.version >= 12 else False
    if call.scope.reading.as_written:
        return _as_written(call, x, float(ratio), trains)
    if not ratio and not call.scope.reading.by_graphc:
        return [x, *_all_true(call, x)]
    return [gc.dropout(x, drop_prob=shortest(ratio), name=call.free_name()), *_all_true(call, x)]


def _noise(call: Call) -> Value:
    """Return random numbers of graphc: drawn anew in each training step, the mean in inference."""
    if call.scope.reading.as_written:
        raise NotSupported("each runtime draws its own random numbers")
    x, normal = call.value(0), call.op == "RandomNormalLike"
    dtype = dtype_of(call.attributes["dtype"]) if "dtype" in call.attributes else x.dtype
    drawn = (gc.random_normal if normal else gc.random_uniform)(x, name=call.free_name())
    if normal:
        low, scale = call.attribute("mean", 0.0), call.attribute("scale", 1.0)
    else:
        low, high = call.attribute("low", 0.0), call.attribute("high", 1.0)
        scale = high - low
    drawn = drawn if scale == 1 else drawn * scale
    return as_dtype(drawn if low == 0 else drawn + low, dtype)


def _as_written(call: Call, x: Value, ratio: float, trains: bool) -> Result:
    """Apply dropout as ONNX's reference does, whose mask NumPy draws with the node's seed."""
    if not trains or ratio == 0:
        return [x, *_all_true(call, x)]
    shape = tuple(dim for dim in x.shape if isinstance(dim, int))
    spend_array(2 * prod(shape))
    random = np.random.RandomState(call.attribute("seed"))
    kept = random.uniform(0, 1.0, shape) >= ratio
    mask = call.constant(kept)
    scaled = gc.where(mask, x * (1 / (1 - ratio)), 0.0)
    return [scaled, mask]


def _all_true(call: Call, x: Value) -> list[Value]:
    if not call.is_read(1):
        return []
    true = call.constant(1, x.dtype) if call.version < 10 else call.constant(True)
    return [gc.broadcast_to(true, x.shape)]


def _layernorm(call: Call) -> Result:
    x = call.value(0)
    eps = call.attribute("epsilon", 1e-5)
    axis = call.attribute("axis", -1) % x.type.rank
    gamma, beta = call.value(1), call.optional(2)
    vector = x.shape[-1:]
    simple = axis == x.type.rank - 1 and gamma.shape == vector and not call.is_read(1)
    if simple and not call.is_read(2) and beta is not None and beta.shape == vector:
        return x.builder.apply(LayerNorm(eps), x, gamma, beta)
    axes = tuple(range(axis, x.type.rank))
    average = gc.mean(x, axes, keepdims=True)
    centred = x - average
    inverse = gc.power(gc.mean(centred * centred, axes, keepdims=True) + eps, -0.5)
    out = centred * inverse * gamma
    return [out if beta is None else out + beta, average, inverse]


def _rmsnorm(call: Call) -> Result:
    x, gamma = call.value(0), call.value(1)
    eps = call.attribute("epsilon", 1e-5)
    axis = call.attribute("axis", -1) % x.type.rank
    if axis == x.type.rank - 1 and gamma.shape == x.shape[-1:]:
        return x.builder.apply(RmsNorm(eps), x, gamma)
    square = gc.mean(x * x, tuple(range(axis, x.type.rank)), keepdims=True)
    return x * gc.power(square + eps, -0.5) * gamma


def _instancenorm(call: Call) -> Value:
    x, eps = call.value(0), call.attribute("epsilon", 1e-5)
    return gc.apply(GroupNorm(_channels(x), eps), x, call.value(1), call.value(2))


def _groupnorm(call: Call) -> Value:
    x, eps, groups = call.value(0), call.attribute("epsilon", 1e-5), call.required("num_groups")
    gamma, beta = (_to_channels(call.value(i), _channels(x), call.version) for i in (1, 2))
    return gc.apply(GroupNorm(groups, eps), x, gamma, beta)


def _channels(x: Value) -> int:
    channels = x.shape[1] if x.type.rank > 1 else None
    if not isinstance(channels, int):
        raise NotSupported(f"{x.type} has no channels")
    return channels


def _to_channels(vector: Value, channels: Dim, version: int) -> Value:
    """Return one number per channel for one per group, which ops before opset 21 have."""
    if version >= 21 or vector.shape == (channels,):
        return vector
    groups = vector.shape[0]
    assert isinstance(groups, int)
    assert isinstance(channels, int)
    column = gc.reshape(vector, (groups, 1))
    return gc.reshape(gc.broadcast_to(column, (groups, channels // groups)), (channels,))


def _lp_normalization(call: Call) -> Value:
    x, p = call.value(0), call.attribute("p", 2)
    axis = call.attribute("axis", -1)
    if p == 1:
        norm = gc.sum(gc.abs(x), axis, keepdims=True)
    else:
        norm = gc.sqrt(gc.sum(x * x, axis, keepdims=True))
    return gc.where(gc.equal(norm, 0.0), 0.0 * x, x / norm)


def _mean_variance(call: Call) -> Value:
    x = call.value(0)
    axes = tuple(axis % x.type.rank for axis in call.attribute("axes", (0, 2, 3)))
    centred = x - gc.mean(x, axes, keepdims=True)
    # ONNX defines the op as a function with this 1e-9, added to the root.
    return centred / (gc.sqrt(gc.mean(centred * centred, axes, keepdims=True)) + 1e-9)


def _softmax_cross_entropy(call: Call) -> Result:
    scores = call.value(0)
    if not call.is_read(1):
        return gc.softmax_loss(scores, call.value(1), **_loss(call))
    log_prob = gc.log_softmax(scores, 1)
    return [gc.nll_loss(log_prob, call.value(1), **_loss(call)), log_prob]


def _loss(call: Call) -> dict[str, Any]:
    """Return the options of a loss of labels as graphc's functions take them."""
    return {
        "class_weight": call.optional(2),
        "ignore": call.attribute("ignore_index"),
        "reduction": call.attribute("reduction", "mean"),
    }


def _groups(call: Call, kinds: int) -> list[tuple[Value, ...]]:
    """Return a tuple of parameter, gradient and slots for each parameter."""
    values = [call.value(i) for i in range(2, len(call))]
    count = len(values) // kinds
    return [tuple(values[i::count]) for i in range(count)]


def _columns(rows: Sequence[tuple[Value, ...]]) -> list[Value]:
    return [row[kind] for kind in range(len(rows[0])) for row in rows]


def _adagrad(call: Call) -> Result:
    """Step by H = H + g*g; X = X - r * g / (sqrt(H) + eps)."""
    eps, decay = call.attribute("epsilon", 1e-6), call.attribute("norm_coefficient", 0.0)
    decayed = call.attribute("decay_factor", 0.0)
    rows = []
    for x, gradient, square in _groups(call, 3):
        rate = call.value(0) / (as_dtype(call.value(1), x.dtype) * decayed + 1.0)
        g = gradient + x * decay
        square = square + g * g
        rows.append((x - rate * g / (gc.sqrt(square) + eps), square))
    return _columns(rows)


def _momentum(call: Call) -> Result:
    """Step by V = alpha*V + beta*g, beta 1 in the first step; X = X - r*V, or Nesterov's."""
    alpha, beta = call.required("alpha"), call.required("beta")
    decay, mode = call.required("norm_coefficient"), call.required("mode")
    rows = []
    for x, gradient, velocity in _groups(call, 3):
        first = gc.greater(call.value(1), 0)
        share = gc.where(first, call.constant(beta, x.dtype), call.constant(1.0, x.dtype))
        g = gradient + x * decay
        velocity = velocity * alpha + g * share
        step = g + velocity * alpha if mode == "nesterov" else velocity
        rows.append((x - call.value(0) * step, velocity))
    return _columns(rows)


def _adam(call: Call) -> Result:
    """Step by D. Kingma, J. Ba, "Adam", ICLR 2015; correct the bias if the count is above 0."""
    alpha, beta = call.attribute("alpha", 0.9), call.attribute("beta", 0.999)
    eps, decay = call.attribute("epsilon", 1e-6), call.attribute("norm_coefficient", 0.0)
    after = call.attribute("norm_coefficient_post", 0.0)
    rows = []
    for x, gradient, mean, square in _groups(call, 4):
        count = as_dtype(call.value(1), x.dtype)
        g = gradient + x * decay
        mean = mean * alpha + g * (1 - alpha)
        square = square * beta + g * g * (1 - beta)
        corrected = gc.sqrt(1.0 - _to_power(beta, count)) / (1.0 - _to_power(alpha, count))
        rate = gc.where(gc.greater(call.value(1), 0), call.value(0) * corrected, call.value(0))
        new = x - rate * mean / (gc.sqrt(square) + eps)
        rows.append((new * (1 - after), mean, square))
    return _columns(rows)


def _to_power(base: float, exponent: Value) -> Value:
    return gc.exp(exponent * log(base)) if base > 0 else exponent * 0.0


def _gradient(call: Call) -> Result:
    """Return the derivatives of `y` with respect to `xs`, which are operands of this node."""
    y = call.scope.values.get(call.required("y"))
    if not isinstance(y, Value):
        raise NotSupported("its y is not a value of the net")
    found = gc.grad(gc.sum(y) if y.shape else y, call.values()[: len(call.required("xs"))])
    assert isinstance(found, list)
    return found


CONVERTERS: dict[str, Converter] = {
    "BatchNormalization": _batchnorm,
    "Dropout": _dropout,
    "GroupNormalization": _groupnorm,
    "InstanceNormalization": _instancenorm,
    "LayerNormalization": _layernorm,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance,
    "NegativeLogLikelihoodLoss": lambda call: gc.nll_loss(
        call.value(0), call.value(1), **_loss(call)
    ),
    "RMSNormalization": _rmsnorm,
    "RandomNormalLike": _noise,
    "RandomUniformLike": _noise,
    "SoftmaxCrossEntropyLoss": _softmax_cross_entropy,
}

PREVIEW: dict[str, Converter] = {
    "Adagrad": _adagrad,
    "Adam": _adam,
    "Gradient": _gradient,
    "Momentum": _momentum,
}
"""The converters of ONNX's preview of training."""
