"""Products of matrices: `matmul`, and the affine (dense, linear) layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, SupportsIndex

import numpy as np

from graphc.base.arguments import checked_whole, plain, takes
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.expr import Expr
from graphc.ir.forms import Product, TermOrder, check_sums, matrix_product, sum_dtype
from graphc.ir.init import Zeros
from graphc.ir.narrow import converted, narrow
from graphc.ir.op import Array, Cotangents, Layer, Op, shared
from graphc.ir.tensor_type import (
    ORDERED,
    Batch,
    Dim,
    Shape,
    TensorType,
    broadcast,
    count,
    dim_at,
    shape_at,
    shape_text,
)
from graphc.ops.apply import OF_LAYER, pair, with_attributes
from graphc.ops.shape import reshape
from graphc.ops.source import parameter
from graphc.ops.sums import sum_, unbroadcast

__all__ = ["affine", "matmul"]


@dataclass(frozen=True)
class OrderedProduct(Op, base=True):
    """The base of products of the first two operands, its factors.

    With an order the factors are of `ORDERED`, or are rounded to it first: `round_products` makes
    that a node of its own.
    """

    order: TermOrder | None = field(default=None, kw_only=True)
    """The order in which terms are added; None if factors are not rounded."""

    def factors(self, ins: Sequence[Array]) -> Sequence[Array]:
        """Return the factors as they are multiplied: as bits of `ORDERED` if there is an order."""
        return ins if self.order is None else [converted(x, ORDERED) for x in ins]


def order_of(op: Op) -> TermOrder | None:
    """Return the order of terms of a product; None for other ops."""
    return op.order if isinstance(op, OrderedProduct) else None


@dataclass(frozen=True)
class MatrixProduct(OrderedProduct, base=True):
    """The base of matrix products of the first two operands, with or without an epilogue."""

    takes_pairs = True
    operations = 0
    trans_a = False
    trans_b = False

    def product(self, ins: Sequence[TensorType]) -> Product | None:
        return matrix_product(ins, self.trans_a, self.trans_b, self.order)

    def flops(self, ins: Sequence[TensorType], out: TensorType, n: int) -> tuple[int, int]:
        size, inner = prod(shape_at(out.shape, n)), _matrix(ins[1].shape, self.trans_b)[0]
        return self.operations * size, 2 * size * dim_at(inner, n)


@dataclass(frozen=True)
class MatMul(MatrixProduct):
    """The product a @ b over the last two axes, either one transposed; leading axes broadcast."""

    name = "matmul"
    roles = ("a", "b")
    trans_a: bool = False
    trans_b: bool = False

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return (..., rows, columns); raise ValueError if ranks, dtypes or inner sizes misfit."""
        a, b = ins
        if a.rank < 2 or b.rank < 2:
            raise ValueError(
                f"a is {a}, b is {b}: matmul takes rank 2 and more\n"
                "reshape a vector to (1, D) or (D, 1)"
            )
        dtype = sum_dtype(a, b, self.order)
        if dtype is None:
            raise ValueError(
                f"a is {a.dtype}, b is {b.dtype}: matmul takes floats of one dtype, or int8"
            )
        rows, inner = _matrix(a.shape, self.trans_a)
        other, columns = _matrix(b.shape, self.trans_b)
        if inner != other:
            raise ValueError(f"a has {inner} columns, b has {other} rows")
        check_sums(inner, dtype)
        return TensorType((*broadcast(a.shape[:-2], b.shape[:-2]), rows, columns), dtype)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the products of the matrices, with the order of terms if it has one."""
        a, b = self.factors(ins)
        if a.dtype == np.int8:  # exact in float64
            return self.reference([x.astype(np.float64) for x in ins]).astype(np.int32)
        left = a.swapaxes(-1, -2) if self.trans_a else a
        right = b.swapaxes(-1, -2) if self.trans_b else b
        if self.order is not None:
            return narrow().multiplied(left, right, order=self.order)
        return np.asarray(left @ right)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return two products that transpose by flags; a matrix b gets one that sums all rows."""
        x, y = ins
        product = partial(MatMul, order=self.order)
        if self.trans_a:
            dx = b.apply(product(self.trans_b, True), y, dout)
        else:
            dx = b.apply(product(False, not self.trans_b), dout, y)
        if y.type.rank == 2 and x.type.rank > 2 and not self.trans_a:
            x, dout = _rows(x), _rows(dout)  # one product that sums over all matrices
        if self.trans_b:
            dy = b.apply(product(True, self.trans_a), dout, x)
        else:
            dy = b.apply(product(not self.trans_a, False), x, dout)
        return unbroadcast(dx, ins[0]), unbroadcast(dy, y)

    @property
    def gradient_text(self) -> tuple[str, ...]:
        """The products d_out @ b.T and a.T @ d_out, transposed if the operand is."""
        back_a, back_b = ("a" if self.trans_a else "a.T"), ("b" if self.trans_b else "b.T")
        for_a, for_b = f"d_out @ {back_b}", f"{back_a} @ d_out"
        return (
            f"({for_a}).T" if self.trans_a else for_a,
            f"({for_b}).T" if self.trans_b else for_b,
        )


def _rows(x: Value) -> Value:
    """Return the matrices of a value as one matrix with all their rows."""
    return reshape(x, (count(x.shape[:-1]), x.shape[-1]))


def _matrix(shape: Shape, transposed: bool) -> tuple[Dim, Dim]:
    """Return the rows and columns of a matrix, after its transposition."""
    return (shape[-1], shape[-2]) if transposed else (shape[-2], shape[-1])


@with_attributes(
    example=("(N, 3)", "x, w", "(N, 5)"),
    also='w = net.parameter("w", (3, 5))',
    b="Floats of one dtype: (..., n, k) and (..., k, m), or vectors.",
    returns="Of shape (..., n, m).",
    raises="If the shapes or dtypes do not fit.",
)
def matmul(a: Any, b: Any, *, name: str | None = None) -> Value:
    """Return the matrix product a @ b over the last two axes; leading axes broadcast.

    As in `numpy.matmul`, a vector is one row on the left and one column on the right, and the
    result does not have that axis.
    """
    left, right = pair("matmul", a, b)
    vectors = left.type.rank == 1, right.type.rank == 1
    if not any(vectors):
        return left.builder.apply(MatMul(), left, right, name=name)
    with left.builder.all_or_nothing():
        rows = reshape(left, (1, *left.shape)) if vectors[0] else left
        columns = reshape(right, (*right.shape, 1)) if vectors[1] else right
        product = left.builder.apply(MatMul(), rows, columns)
        *leading, above, across = product.shape
        own = [dim for dim, one in zip((above, across), vectors, strict=True) if not one]
        return reshape(product, (*leading, *own), name=name)


class Affine(MatrixProduct):
    """The map x @ weight + bias; a row of x is a sample, a column of weight a unit."""

    roles = ("x", "weight", "bias")
    onnx = "Gemm"
    gradient_text = ("d_out @ weight.T", "x.T @ d_out", "sum(d_out, 0)")
    operations = 1

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return (rows, units); raise ValueError unless x and weight are matrices that fit."""
        x, weight, bias = ins
        if x.rank != 2 or weight.rank != 2:
            raise ValueError(f"x is {x}, weight is {weight}: both must be matrices")
        dtype = sum_dtype(x, weight, self.order)
        if not bias.is_float or dtype != bias.dtype:
            raise ValueError(f"x is {x.dtype}, weight is {weight.dtype}, bias is {bias.dtype}")
        if x.shape[1] != weight.shape[0]:
            raise ValueError(f"x has {x.shape[1]} features, weight takes {weight.shape[0]}")
        if bias.shape != weight.shape[1:]:
            raise ValueError(_bias_text(bias, weight))
        return TensorType((x.shape[0], weight.shape[1]), dtype)

    def reference(self, ins: Sequence[Array]) -> Array:
        *factors, bias = ins
        return np.asarray(shared(MatMul, order=self.order).reference(factors) + bias)

    def epilogue(self, product: Expr, ins: Sequence[Expr]) -> Expr:
        (bias,) = ins
        return product + bias

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return dout @ weight.T, x.T @ dout, and the sum of dout over the rows."""
        x, weight, _ = ins
        return (
            b.apply(shared(MatMul, False, True, order=self.order), dout, weight),
            b.apply(shared(MatMul, True, False, order=self.order), x, dout),
            sum_(dout, 0),
        )


def _bias_text(bias: TensorType, weight: TensorType) -> str:
    """Return the message for a bias of the wrong shape."""
    return f"bias has shape {shape_text(bias.shape)}, weight gives {weight.shape[1]} units"


@dataclass(frozen=True)
class AffineLayer(Layer):
    """An affine map of flattened samples, or of the last axis."""

    takes_pairs = True
    name = "affine"
    roles = ("x", "weight", "bias")
    optional = 1
    last_axis: bool = False

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return (N, units), or (..., units) if it maps the last axis; check the bias's shape."""
        x, weight = ins[0], ins[1]
        self._check(x, weight)
        units = weight.shape[1]
        if len(ins) == 3 and ins[2].shape != (units,):
            raise ValueError(_bias_text(ins[2], weight))
        shape = (*x.shape[:-1], units) if self.last_axis else (x.shape[0], units)
        return x.with_shape(shape)

    def features(self, x: TensorType) -> Dim:
        """Return the number of features; raise ValueError if x has no axis of them."""
        if x.rank < 2:
            raise ValueError(
                f"x has shape {shape_text(x.shape)}, affine takes (N, features)\n"
                "give it a feature axis: gc.reshape(x, (gc.N, 1))"
            )
        return x.shape[-1] if self.last_axis else count(x.shape[1:])

    def _check(self, x: TensorType, weight: TensorType) -> None:
        """Raise ValueError unless x and the weight fit."""
        features = self.features(x)
        if not x.is_float or weight.dtype != x.dtype:
            raise ValueError(
                f"x is {x.dtype}, weight is {weight.dtype}\ncast x: gc.cast(x, {weight.dtype!r})"
            )
        if weight.rank != 2 or weight.shape[0] != features:
            takes = weight.shape[0] if weight.rank == 2 else shape_text(weight.shape)
            raise ValueError(
                f"x has {features} features, weight takes {takes}\n"
                "share a weight only between layers of one input width"
            )

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, weight = ins[0], ins[1]
        rows = x if self.last_axis else x.reshape(len(x), len(weight))
        return np.asarray(rows @ weight + (ins[2] if len(ins) == 3 else 0)).astype(x.dtype)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        """Build a product of matrices from the flattened x, and restore the leading axes."""
        x, weight = ins[0], ins[1]
        rows = _flat(x, self.last_axis, name)
        op = shared(Affine if len(ins) == 3 else MatMul)
        if not (self.last_axis and x.type.rank > 2):
            return b.apply(op, rows, *ins[1:], name=name)
        flat = b.apply(op, rows, *ins[1:], name=f"{name}.rows")
        return reshape(flat, (*x.shape[:-1], weight.shape[1]), name=name)


def _flat(x: Value, last_axis: bool, name: str) -> Value:
    """Return x as a matrix of flattened samples, or of its last axis."""
    if x.type.rank == 2:
        return x
    if last_axis:
        return reshape(x, (count(x.shape[:-1]), x.shape[-1]), name=f"{name}.flat")
    return reshape(x, (x.shape[0], count(x.shape[1:])), name=f"{name}.flat")


@takes(
    "gc.affine(x, 10)",
    activation="it is a separate function: gc.relu(gc.affine(x, 10))",
    out_features="it is units",
    in_features="it is read off x: gc.affine(x, 10)",
    use_bias="it is bias",
    kernel_initializer="it is init",
)
@with_attributes(
    example=("(N, 4)", "x, 10", "(N, 10)"),
    x="Floats (N, d1, ..., dk), flattened to (N, D).  `<node>.weight` is (D, units),\n"
    "`<node>.bias` (units,).",
    units="The number of features of the result.",
    bias="Existing parameters to share.  `bias=False` leaves the bias out.",
    axis="-1 to map the last axis and to keep the others.",
    init="The start of the weight; see `gc.He`.  The bias starts at 0.",
    name=OF_LAYER,
    returns="Of shape (N, units), or (..., units) with `axis=-1`.",
    raises="If the features do not fit the weight, or depend on the batch.",
)
def affine(
    x: Value,
    units: SupportsIndex | None = None,
    *,
    weight: Value | None = None,
    bias: bool | Value = True,
    axis: int | None = None,
    init: Any = "he",
    name: str | None = None,
) -> Value:
    """Return x @ weight + bias: a dense layer."""
    b = as_value("affine", x).builder
    layer = AffineLayer(last_axis=_last_axis(x, axis))
    node, dtype = b.free_name("affine", name), x.dtype if x.type.is_float else b.dtype
    with b.all_or_nothing():
        if weight is None:
            sizes = (_features(x, layer), _units(units))
            weight = parameter(b, f"{node}.weight", sizes, dtype, init)
        elif units is not None and weight.shape[-1:] != (units,):
            message = f"weight gives {weight.shape[-1]} units, {units} were asked for"
            raise b.error(layer, message, (x, weight))
        operands = [x, weight]
        if isinstance(bias, Value):
            operands.append(bias)
        elif bias:
            operands.append(parameter(b, f"{node}.bias", weight.shape[1:], dtype, Zeros()))
        return b.apply(layer, *operands, name=node)


def _units(units: object) -> int:
    """Return the number of units; raise GraphError unless it is a whole number from 1 up."""
    hint = "it is the number of features that come out: gc.affine(x, 10)"
    return checked_whole("affine: units", units, hint=hint)


def _last_axis(x: Value, axis: int | None) -> bool:
    """Return whether the layer acts on the last axis; raise GraphError for any other axis."""
    if axis is None:
        return False
    if plain(axis) not in (-1, x.type.rank - 1):
        message = f"axis {axis} is not the last\ntranspose x first, or leave axis out"
        raise x.builder.error(AffineLayer(True), message, (x,))
    return True


def _features(x: Value, layer: AffineLayer) -> int:
    """Return the number of features; raise GraphError at the user's line if there is none."""
    try:
        features = layer.features(x.type)
    except ValueError as error:
        raise x.builder.error(layer, str(error), (x,)) from None
    if isinstance(features, Batch):
        raise x.builder.error(layer, "the features may not depend on the batch", (x,))
    return features
