"""PyTorch's reductions and sums along axes, by graphc."""

from __future__ import annotations

from math import inf, prod
from typing import Any

import graphc as gc
from tests.ops.opinfo.refused import refuse
from tests.ops.opinfo.signatures.extra_axis import without_axes

Value = gc.Value


def _axes(x: Value, dim: Any) -> tuple[int, ...]:
    """PyTorch's dim; None and () are all of them."""
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return tuple(range(x.type.rank))
    axes = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(axis % x.type.rank for axis in axes) if x.type.rank else ()


def _of_floats(x: Value, dtype: Any) -> None:
    refuse("another dtype is asked for", dtype is not None and str(dtype) != f"torch.{x.dtype}")


def sum_(x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    _of_floats(x, dtype)
    return gc.sum(x, _axes(x, dim), keepdim)


def mean(x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    _of_floats(x, dtype)
    return gc.mean(x, _axes(x, dim), keepdim)


@without_axes
def prod_(x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    _of_floats(x, dtype)
    return gc.prod(x, _axes(x, dim), keepdim)


def nansum(x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    return sum_(gc.where(gc.isnan(x), 0.0, x), dim, keepdim, dtype=dtype)


def nanmean(x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    counted = gc.cast(~gc.isnan(x), x.dtype)
    return nansum(x, dim, keepdim, dtype=dtype) / sum_(counted, dim, keepdim)


def amax(x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return gc.max(x, _axes(x, dim), keepdim)


def amin(x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return gc.min(x, _axes(x, dim), keepdim)


def aminmax(x: Value, *, dim: Any = None, keepdim: bool = False) -> tuple[Value, Value]:
    return amin(x, dim, keepdim), amax(x, dim, keepdim)


@without_axes
def max_with_dim(x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return gc.max(x, _axes(x, dim), keepdim), gc.argmax(x, dim, keepdim)


@without_axes
def min_with_dim(x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return gc.min(x, _axes(x, dim), keepdim), gc.argmin(x, dim, keepdim)


@without_axes
def argmax(x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _index(gc.argmax, x, dim, keepdim)


@without_axes
def argmin(x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _index(gc.argmin, x, dim, keepdim)


def _index(function: Any, x: Value, dim: int | None, keepdim: bool) -> Value:
    if dim is not None:
        return function(x, dim, keepdim)
    found = function(gc.reshape(x, (-1,)), 0)
    return gc.reshape(found, (1,) * x.type.rank) if keepdim else found


def any_(x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return gc.max(gc.not_equal(x, 0.0), _axes(x, dim), keepdim)


def all_(x: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return gc.min(gc.not_equal(x, 0.0), _axes(x, dim), keepdim)


def count_nonzero(x: Value, dim: Any = None) -> Value:
    return gc.sum(gc.cast(gc.not_equal(x, 0.0), "int64"), _axes(x, dim))


def logsumexp(x: Value, dim: Any, keepdim: bool = False) -> Value:
    return gc.logsumexp(x, _axes(x, dim), keepdim)


def var(
    x: Value,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Value:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = _axes(x, dim)
    less = (0 if unbiased is False else 1) if correction is None else correction
    error = x - gc.mean(x, axes, keepdims=True)
    rows = prod(x.shape[axis] for axis in axes)
    refuse("the numbers are no more than the correction", rows <= less)
    return gc.sum_squares(error, axes, keepdim) / (rows - less)


def std(*args: Any, **more: Any) -> Value:
    return gc.sqrt(var(*args, **more))


def _and_mean(function: Any) -> Any:
    def both(x: Value, *args: Any, **more: Any) -> tuple[Value, Value]:
        dim = more.get("dim", args[0] if args and not isinstance(args[0], bool) else None)
        keepdim = more.get("keepdim", False)
        return function(x, *args, **more), gc.mean(x, _axes(x, dim), keepdim)

    return both


def vector_norm(
    x: Value, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    _of_floats(x, dtype)
    axes = _axes(x, dim)
    if ord == 2:
        return gc.l2_norm(x, axes, keepdim)
    if ord == 1:
        return gc.l1_norm(x, axes, keepdim)
    if ord == inf:
        return gc.max(gc.abs(x), axes, keepdim)
    if ord == -inf:
        return gc.min(gc.abs(x), axes, keepdim)
    if ord == 0:
        return gc.sum(gc.cast(gc.not_equal(x, 0.0), x.dtype), axes, keepdim)
    return gc.power(gc.sum(gc.power(gc.abs(x), ord), axes, keepdim), 1 / ord)


def norm(
    x: Value, p: Any = "fro", dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    refuse("no singular values", p == "nuc")
    return vector_norm(x, 2 if p in ("fro", None) else p, dim, keepdim, dtype=dtype)


def linalg_norm(
    x: Value, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    matrix = (dim is None and x.type.rank == 2) or (dim is not None and len(_axes(x, dim)) == 2)
    if ord in (None, "fro"):
        return vector_norm(x, 2, dim, keepdim, dtype=dtype)
    if not matrix:
        return vector_norm(x, ord, dim, keepdim, dtype=dtype)
    return matrix_norm(x, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)


def matrix_norm(
    x: Value, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Value:
    refuse("no singular values", ord in ("nuc", 2, -2))
    rows, columns = _axes(x, dim)
    if ord == "fro":
        return vector_norm(x, 2, (rows, columns), keepdim, dtype=dtype)
    along, across = (rows, columns) if abs(ord) == 1 else (columns, rows)
    chosen = gc.max if ord > 0 else gc.min
    found = chosen(gc.l1_norm(x, along, keepdims=True), across, keepdims=True)
    return found if keepdim else gc.squeeze(found, (rows, columns))


@without_axes
def cumsum(x: Value, dim: int, *, dtype: Any = None) -> Value:
    _of_floats(x, dtype)
    return gc.cumsum(x, dim)


@without_axes
def cumprod(x: Value, dim: int, *, dtype: Any = None) -> Value:
    _of_floats(x, dtype)
    return gc.cumprod(x, dim)


def sum_to_size(x: Value, *size: Any) -> Value:
    wanted = tuple(size[0]) if size and not isinstance(size[0], int) else size
    more = x.type.rank - len(wanted)
    axes = [i for i, dim in enumerate(x.shape) if i < more or wanted[i - more] != dim]
    return gc.reshape(gc.sum(x, axes, keepdims=True), wanted)


@without_axes
def softmax(x: Value, dim: int, *, dtype: Any = None) -> Value:
    _of_floats(x, dtype)
    return gc.softmax(x, dim)


@without_axes
def log_softmax(x: Value, dim: int, *, dtype: Any = None) -> Value:
    _of_floats(x, dtype)
    return gc.log_softmax(x, dim)


def softmin(x: Value, dim: int, *, dtype: Any = None) -> Value:
    return softmax(-x, dim, dtype=dtype)


def dist(x: Value, other: Value, p: float = 2) -> Value:
    return vector_norm(x - other, p)


OURS = {
    "sum": sum_,
    "mean": mean,
    "prod": prod_,
    "nansum": nansum,
    "nanmean": nanmean,
    "amax": amax,
    "amin": amin,
    "aminmax": aminmax,
    "max/reduction_no_dim": amax,
    "max/reduction_with_dim": max_with_dim,
    "min/reduction_no_dim": amin,
    "min/reduction_with_dim": min_with_dim,
    "argmax": argmax,
    "argmin": argmin,
    "any": any_,
    "all": all_,
    "count_nonzero": count_nonzero,
    "logsumexp": logsumexp,
    "var": var,
    "var/unbiased": var,
    "std": std,
    "std/unbiased": std,
    "var_mean": _and_mean(var),
    "var_mean/unbiased": _and_mean(var),
    "std_mean": _and_mean(std),
    "std_mean/unbiased": _and_mean(std),
    "norm": norm,
    "norm/fro": norm,
    "norm/inf": norm,
    "linalg.norm": linalg_norm,
    "linalg.norm/subgradients_at_zero": linalg_norm,
    "linalg.vector_norm": vector_norm,
    "linalg.matrix_norm": matrix_norm,
    "dist": dist,
    "cumsum": cumsum,
    "cumprod": cumprod,
    "sum_to_size": sum_to_size,
    "softmax": softmax,
    "softmax/with_dtype": softmax,
    "log_softmax": log_softmax,
    "log_softmax/with_dtype": log_softmax,
    "nn.functional.softmin": softmin,
    "nn.functional.softmin/with_dtype": softmin,
}
