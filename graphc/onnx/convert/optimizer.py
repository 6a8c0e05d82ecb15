"""Converters of optimizer steps and derivatives: ONNX's preview of training.

Each step takes a rate, the count of updates before it, then all parameters, all their gradients,
and the slots of each kind; it gives the new parameters and slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

import graphc as gc
from graphc.ir.build import Value
from graphc.onnx.call import Call, Result
from graphc.onnx.known import NotSupported


def _groups(call: Call, kinds: int) -> list[tuple[Value, ...]]:
    """Return a tuple of parameter, gradient and slots for each parameter."""
    values = [call.value(i) for i in range(2, len(call))]
    count = len(values) // kinds
    return [tuple(values[i::count]) for i in range(count)]


def _columns(rows: Sequence[tuple[Value, ...]]) -> list[Value]:
    return [row[kind] for kind in range(len(rows[0])) for row in rows]


def _float_of(count: Value, like: Value) -> Value:
    return gc.cast(count, like.dtype)


def _adagrad(call: Call) -> Result:
    """Step by H = H + g*g; X = X - r * g / (sqrt(H) + eps)."""
    eps, decay = call.attribute("epsilon", 1e-6), call.attribute("norm_coefficient", 0.0)
    decayed = call.attribute("decay_factor", 0.0)
    rows = []
    for x, gradient, square in _groups(call, 3):
        rate = call.value(0) / (_float_of(call.value(1), x) * decayed + 1.0)
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
        count = _float_of(call.value(1), x)
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


CONVERTERS: dict[str, Callable[[Call], Result]] = {
    "Adagrad": _adagrad,
    "Adam": _adam,
    "Gradient": _gradient,
    "Momentum": _momentum,
}
