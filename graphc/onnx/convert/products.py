"""Converters of matrix products: of matrices, of named axes, and of quantized numbers.

Quantized numbers are few-bit integers with a scale: x = (q - zero) * scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import graphc as gc
from graphc.ir.build import Value
from graphc.ir.tensor_type import Shape, broadcast, count
from graphc.onnx.call import Call, Converter, NotSupported, Weight, dtype_of
from graphc.onnx.convert.conv import convolution
from graphc.ops.linalg import MatMul
from graphc.ops.shape import as_dtype


def _gemm(call: Call) -> Value:
    """Return alpha * a @ b + beta * c; with the usual attributes it is an affine layer."""
    x = call.value(0)
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    layer = alpha == beta == 1 and not call.attribute("transA", 0) and _is_layer(call, x)
    weight = _matrix(call, layer)
    bias = call.optional(2)
    if layer:
        given = False if bias is None else bias
        return gc.affine(_unflattened(call, x), weight=weight, bias=given)
    if bias is not None:
        # It raises for a bias to which the product would have to be broadcast.
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
    if whole is None or whole.builder is not x.builder or x.node.inputs != (whole.name,):
        return x
    return whole


def _is_layer(call: Call, x: Value) -> bool:
    """Return whether a plain product becomes an affine layer.

    Then its weight, if another library trained it, is the transpose of what that library has.
    """
    flipped, own = bool(call.attribute("transB", 0)), call.scope.reading.by_graphc
    if not call.has(2):
        return flipped and not own and x.type.is_float
    units = call.type(1).shape[0 if flipped else 1]
    kept = own or flipped or not isinstance(call.operand(1), Weight)
    return kept and call.type(2).shape == (units,)


def _matrix(call: Call, layer: bool) -> Value:
    """Return b, transposed if the node says so, an initializer at import if it is of a layer."""
    weight = call.operand(1)
    if not call.attribute("transB", 0):
        return call.value(1)
    if isinstance(weight, Value) or (isinstance(weight, Weight) and not layer):
        return gc.transpose(call.value(1))
    return call.scope.transposed(weight)


def _einsum(call: Call) -> Value:
    values = call.values()
    terms, result = _terms(call.required("equation"), [v.type.rank for v in values])
    left = [_diagonal(v, t) for v, t in zip(values, terms, strict=True)]
    value, names = left.pop(0)
    while left:
        other, its = left.pop(0)
        later = set(result).union(*(names for _, names in left))
        value, names = _contracted(value, names, other, its, later)
    gone = tuple(i for i, name in enumerate(names) if name not in result)
    if gone:
        value = gc.sum(value, gone)
        names = [name for name in names if name in result]
    order = [names.index(name) for name in result]
    return value if order == list(range(len(order))) else gc.transpose(value, order)


def _terms(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Parse an einsum equation to the axis names of operands and result; "..." gives digits."""
    text = equation.replace(" ", "")
    inputs, arrow, output = text.partition("->")
    parts = inputs.split(",")
    if len(parts) != len(ranks):
        raise NotSupported(f"the equation {equation!r} for {len(ranks)} operands")
    most = max(
        (rank - len(part) + 3 for part, rank in zip(parts, ranks, strict=True) if "..." in part),
        default=0,
    )
    terms = []
    for part, rank in zip(parts, ranks, strict=True):
        own = rank - len(part) + 3 if "..." in part else 0
        terms.append(_names(part, most, own))
        if len(terms[-1]) != rank:
            raise NotSupported(f"{part!r} names no axes of a value of rank {rank}")
    if arrow:
        return terms, _names(output, most, most)
    every = [name for term in terms for name in term]
    once = sorted(name for name in set(every) if every.count(name) == 1 and not name.isdigit())
    return terms, [*map(str, range(most)), *once]


def _names(part: str, most: int, own: int) -> list[str]:
    before, dots, behind = part.partition("...")
    between = [str(i) for i in range(most - own, most)] if dots else []
    return [*before, *between, *behind]


def _diagonal(value: Value, names: list[str]) -> tuple[Value, list[str]]:
    """Return the diagonal over axes of the same name, and the names that remain."""
    while repeated := [name for name in names if names.count(name) > 1]:
        position = names.index(repeated[0])
        second = names.index(repeated[0], position + 1)
        size = value.shape[position]
        if not isinstance(size, int) or value.shape[second] != size:
            raise NotSupported(f"a diagonal of axes {position} and {second} of {value.type}")
        order = [i for i in range(len(names)) if i not in (position, second)]
        moved = gc.transpose(value, [*order, position, second])
        flat = gc.reshape(moved, (*moved.shape[:-2], size * size))
        value = flat[..., :: size + 1]
        names = [*(names[i] for i in order), repeated[0]]
    return value, names


def _contracted(
    a: Value, names: list[str], b: Value, its: list[str], later: set[str]
) -> tuple[Value, list[str]]:
    """Return the product of two operands, summed over the shared axes that are not needed later."""
    both = [name for name in names if name in its]
    kept = [name for name in both if name in later]
    summed = [name for name in both if name not in later]
    rows = [name for name in names if name not in its]
    columns = [name for name in its if name not in names]
    left, right = (
        _grouped_axes(a, names, kept, rows, summed),
        _grouped_axes(b, its, kept, summed, columns),
    )
    product = gc.matmul(left, right)
    sizes = dict(zip([*its, *names], [*b.shape, *a.shape], strict=True))
    result = [*kept, *rows, *columns]
    return gc.reshape(product, tuple(sizes[name] for name in result)), result


def _grouped_axes(x: Value, names: list[str], *groups: list[str]) -> Value:
    """Return x permuted and reshaped so that each group of axes is one dimension."""
    order = [names.index(name) for group in groups for name in group]
    moved = x if order == list(range(len(order))) else gc.transpose(x, order)
    sizes = dict(zip(names, x.shape, strict=True))
    shape: Shape = tuple(count(tuple(sizes[name] for name in group)) for group in groups)
    return moved if moved.shape == shape else gc.reshape(moved, shape)


def _broadcast_scale(call: Call, position: int, x: Value, axis: int) -> Value:
    """Return a scale or a zero point, shaped to broadcast along the axis of x."""
    value = call.value(position)
    if value.type.rank == 0 or value.shape == (1,):
        return gc.reshape(value, ()) if value.type.rank else value
    if value.type.rank > 1:
        raise NotSupported("scales of blocks")
    shape = [1] * x.type.rank
    axis %= x.type.rank
    return gc.reshape(value, (*shape[:axis], value.shape[0], *shape[axis + 1 :]))


def _quantized(exact: Value, zero: Value | None, dtype: str) -> Value:
    """Round to the nearest integer, ties to even, and saturate to the range of the dtype."""
    if not dtype.startswith(("int", "uint")):
        raise NotSupported(f"quantized to {dtype}")
    limits = np.iinfo(dtype)
    whole = gc.round(exact)
    if zero is not None:
        whole = whole + as_dtype(zero, exact.dtype)
    return gc.cast(gc.clip(whole, float(limits.min), float(limits.max)), dtype)


def _quantize(call: Call) -> Value:
    call.unless(block_size=0)
    x, axis = call.value(0), call.attribute("axis", 1)
    scale = _broadcast_scale(call, 1, x, axis)
    zero = _broadcast_scale(call, 2, x, axis) if call.has(2) else None
    number = call.attribute("output_dtype", 0)
    dtype = zero.dtype if zero is not None else dtype_of(number) if number else "uint8"
    return _quantized(x / as_dtype(scale, x.dtype), zero, dtype)


def _dequantize(call: Call) -> Value:
    call.unless(block_size=0)
    x, axis = call.value(0), call.attribute("axis", 1)
    scale = _broadcast_scale(call, 1, x, axis)
    exact = as_dtype(x, scale.dtype)
    if call.has(2):
        exact = exact - as_dtype(_broadcast_scale(call, 2, x, axis), scale.dtype)
    return exact * scale


def _minus_zero_point(call: Call, position: int, zero: int, axis: int) -> Value:
    """Subtract the zero point, in float64, which represents all sums of such numbers exactly."""
    x = gc.cast(call.value(position), "float64")
    if not call.has(zero):
        return x
    return x - gc.cast(_broadcast_scale(call, zero, x, axis), "float64")


def _requantized(call: Call, exact: Value, axes: Sequence[int]) -> Value:
    """Return a product, scaled and rounded; `axes` are those of both scales and the result's."""
    scales = [
        gc.cast(_broadcast_scale(call, i, exact, axis), "float64")
        for i, axis in zip((1, 4, 6), axes, strict=True)
    ]
    scaled = exact * (scales[0] * scales[1] / scales[2])
    return _quantized(scaled, _broadcast_scale(call, 7, exact, axes[2]), call.type(7).dtype)


def _matmul_integer(call: Call) -> Value:
    product = gc.matmul(_minus_zero_point(call, 0, 2, -2), _minus_zero_point(call, 1, 3, -1))
    return gc.cast(product, "int32")


def _qlinear_matmul(call: Call) -> Value:
    product = gc.matmul(_minus_zero_point(call, 0, 2, -2), _minus_zero_point(call, 3, 5, -1))
    return _requantized(call, product, (-2, -1, -1))


def _qlinear_conv(call: Call) -> Value:
    total = convolution(call, _minus_zero_point(call, 0, 2, 1), _minus_zero_point(call, 3, 5, 0))
    if call.has(8):
        bias = gc.cast(call.value(8), "float64")
        total = total + gc.reshape(bias, (bias.shape[0], *(1,) * (total.type.rank - 2)))
    return _requantized(call, total, (1, 1, 1))


CONVERTERS: dict[str, Converter] = {
    "ConvInteger": lambda call: gc.cast(
        convolution(call, _minus_zero_point(call, 0, 2, 1), _minus_zero_point(call, 1, 3, 0)),
        "int32",
    ),
    "DequantizeLinear": _dequantize,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": lambda call: gc.matmul(*call.values()),
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
}
