"""Converters of matrix products."""

from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.ir.build import Value
from graphc.ir.tensor_type import broadcast
from graphc.onnx.call import Call, Result
from graphc.ops.linalg import MatMul


def _matmul(call: Call) -> Value:
    a, b = call.value(0), call.value(1)
    left, right = a.type.rank == 1, b.type.rank == 1
    if left:
        a = gc.reshape(a, (1, *a.shape))
    if right:
        b = gc.reshape(b, (*b.shape, 1))
    out = gc.matmul(a, b)
    shape = out.shape
    if left:
        shape = (*shape[:-2], shape[-1])
    if right:
        shape = shape[:-1]
    return out if shape == out.shape else gc.reshape(out, shape)


def _gemm(call: Call) -> Value:
    """Return alpha * a @ b + beta * c; with the usual attributes it is an affine layer."""
    x = call.value(0)
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    weight = _matrix(call)
    bias = call.maybe(2)
    plain = alpha == beta == 1 and not call.attribute("transA", 0)
    if plain and bias is not None and bias.shape == weight.shape[1:]:
        return gc.affine(_unflattened(call, x), weight=weight, bias=bias)
    if bias is not None:
        broadcast(bias.shape, (x.shape[1 if call.attribute("transA", 0) else 0], weight.shape[1]))
    out = x.builder.apply(MatMul(trans_a=bool(call.attribute("transA", 0))), x, weight)
    if alpha != 1:
        out = out * alpha
    if bias is None:
        return out
    return out + (bias if beta == 1 else bias * beta)


def _unflattened(call: Call, x: Value) -> Value:
    """Return the operand of the Flatten that made x, since an affine layer flattens by itself."""
    whole = call.scope.reading.flattened.get(x.name)
    return x if whole is None or x.node.inputs != (whole.name,) else whole


def _matrix(call: Call) -> Value:
    """Return b, transposed if the node says so; an initializer is transposed once, at import."""
    weight = call.operand(1)
    if not call.attribute("transB", 0):
        return call.value(1)
    if isinstance(weight, Value):
        return gc.transpose(weight)
    return call.scope.turned(weight)


CONVERTERS: dict[str, Callable[[Call], Result]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
}
