"""PyTorch's functions of indices, masks and order, by graphc."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
from tests.ops.opinfo.refused import refuse
from tests.ops.opinfo.signatures.extra_axis import without_axes

Value = gc.Value


def gather(x: Value, dim: int, index: Value, *, sparse_grad: bool = False) -> Value:
    """The axes that are not indexed are cut to the sizes of the indices', as PyTorch does."""
    if not x.type.rank:
        flat = gc.gather(gc.reshape(x, (1,)), gc.reshape(index, (-1,)))
        return gc.reshape(flat, index.shape)
    return gc.gather_elements(_as_wide(x, index, dim), index, dim)


def _as_wide(x: Value, index: Value, dim: int) -> Value:
    axis = dim % x.type.rank if x.type.rank else 0
    cut = [slice(None) if i == axis else slice(0, n) for i, n in enumerate(index.shape)]
    return x[tuple(cut)] if x.shape != index.shape and cut else x


@without_axes
def index_select(x: Value, dim: int, index: Value) -> Value:
    return gc.gather(x, index, dim)


def take(x: Value, index: Value) -> Value:
    return gc.gather(gc.reshape(x, (-1,)), _from_zero(index, int(np.prod(x.shape))))


def take_along_dim(x: Value, index: Value, dim: int | None = None) -> Value:
    if dim is None:
        size = int(np.prod(x.shape))
        return gc.gather_elements(gc.reshape(x, (-1,)), _from_zero(gc.reshape(index, (-1,)), size))
    sizes = [max(a, b) for a, b in zip(x.shape, index.shape, strict=True)]
    axis = dim % x.type.rank
    wide = [x.shape[axis] if i == axis else n for i, n in enumerate(sizes)]
    spread = [index.shape[axis] if i == axis else n for i, n in enumerate(sizes)]
    places = _from_zero(gc.broadcast_to(index, spread), x.shape[axis])
    return gc.gather_elements(gc.broadcast_to(x, wide), places, dim)


def _from_zero(index: Value, size: int) -> Value:
    """PyTorch counts from the end what is below 0."""
    return gc.where(index < 0, index + size, index)


def _written(reduction: str) -> Any:
    @without_axes
    def function(x: Value, dim: int, index: Value, source: Any, *rest: Any, **more: Any) -> Value:
        kind = _reduction(reduction, *rest, **more)
        refuse("the numbers that are written are one", not isinstance(source, Value))
        cut = tuple(slice(0, n) for n in index.shape)
        part = source if source.shape == index.shape else source[cut]
        axis = dim % x.type.rank if x.type.rank else 0
        if any(
            a != b for i, (a, b) in enumerate(zip(x.shape, index.shape, strict=True)) if i != axis
        ):
            return _written_to_a_part(x, axis, index, part, kind)
        return gc.scatter_elements(x, index, part, dim, reduction=kind)

    return function


def _written_to_a_part(x: Value, axis: int, index: Value, part: Value, kind: Any) -> Value:
    """The indices are of fewer rows than x: what is beyond them stays."""
    found = gc.scatter_elements(_as_wide(x, index, axis), index, part, axis, reduction=kind)
    for i, n in enumerate(index.shape):
        if i != axis and x.shape[i] != n:
            beyond = [slice(0, m) for m in found.shape]
            beyond[i] = slice(n, None)
            found = gc.concat([found, x[tuple(beyond)]], i)
    return found


def _reduction(
    reduction: str, *rest: Any, reduce: str | None = None, include_self: bool = True
) -> Any:
    refuse("what was there is left out", not include_self)
    given = rest[0] if rest else reduce
    known = {None: reduction, "sum": "add", "add": "add", "amax": "max", "amin": "min"}
    refuse(f"no reduction by {given}", given not in known)
    return known[given]


@without_axes
def index_add(x: Value, dim: int, index: Value, source: Value, *, alpha: float = 1) -> Value:
    scaled = source if alpha == 1 else source * alpha
    return gc.scatter_elements(x, _spread(index, source, dim), scaled, dim, reduction="add")


@without_axes
def index_copy(x: Value, dim: int, index: Value, source: Value) -> Value:
    return gc.scatter_elements(x, _spread(index, source, dim), source, dim)


def _spread(index: Value, source: Value, dim: int) -> Value:
    shape = [1] * source.type.rank
    shape[dim] = -1
    return gc.broadcast_to(gc.reshape(index, shape), source.shape)


@without_axes
def index_fill(x: Value, dim: int, index: Value, value: Any) -> Value:
    (size,) = gc.reshape(index, (-1,)).shape
    shape = [size if i == dim % x.type.rank else n for i, n in enumerate(x.shape)]
    wide = gc.broadcast_to(_number(x, value), shape)
    return gc.scatter_elements(x, _spread(index, wide, dim), wide, dim)


def _number(x: Value, value: Any) -> Value:
    return value if isinstance(value, Value) else gc.sum(x) * 0.0 + value


def index_put(x: Value, indices: Any, values: Value, accumulate: bool = False) -> Value:
    refuse("masks as indices", any(index.dtype == "bool" for index in indices))
    refuse("indices that broadcast", len({index.shape for index in indices}) > 1)
    places = gc.stack(list(indices), -1)
    shape = (*indices[0].shape, *x.shape[len(indices) :])
    written = gc.broadcast_to(values, shape)
    return gc.scatter_nd(x, places, written, reduction="add" if accumulate else "none")


def put(x: Value, index: Value, source: Value, accumulate: bool = False) -> Value:
    size = int(np.prod(x.shape))
    flat = gc.reshape(x, (-1,))
    places = _from_zero(gc.reshape(index, (-1,)), size)
    kind: Any = "add" if accumulate else "none"
    found = gc.scatter_elements(flat, places, gc.reshape(source, (-1,)), reduction=kind)
    return gc.reshape(found, x.shape)


def embedding(
    weight: Value,
    ids: Value,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Value:
    refuse("rows are scaled in place", max_norm is not None)
    refuse("gradients are scaled by frequency", scale_grad_by_freq)
    if padding_idx is not None:
        row = padding_idx % weight.shape[0]
        rows = gc.embedding(ids, weight=weight)
        padded = gc.unsqueeze(gc.equal(ids, row), ids.type.rank)
        return gc.where(padded, gc.stop_gradient(rows), rows)
    return gc.embedding(ids, weight=weight)


def one_hot(x: Value, num_classes: int = -1) -> Value:
    refuse("the number of classes is found in the numbers", num_classes == -1)
    return gc.cast(gc.one_hot(x, num_classes), "int64")


def where(x: Value, condition: Value, other: Any) -> Value:
    return gc.where(condition, x, other)


def masked_fill(x: Value, mask: Value, value: Any) -> Value:
    return gc.where(mask, value, x)


@without_axes
def topk(
    x: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Value, Value]:
    return gc.topk(x, k, dim, largest=largest)


@without_axes
def sort(
    x: Value, dim: int = -1, descending: bool = False, *, stable: bool = False
) -> tuple[Value, Value]:
    return gc.sort(x, dim, descending=descending), argsort(x, dim, descending)


@without_axes
def argsort(x: Value, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Value:
    return gc.argsort(x, dim, descending=descending)


@without_axes
def kthvalue(x: Value, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    found = []
    for chosen in gc.topk(x, k, dim, largest=False):
        last = chosen[(slice(None),) * (dim % x.type.rank) + (slice(k - 1, k),)]
        found.append(gc.reshape(last, last.shape) if keepdim else gc.squeeze(last, dim))
    return found[0], found[1]


def heaviside(x: Value, values: Value) -> Value:
    return gc.where(gc.equal(x, 0.0), values, gc.cast(x > 0.0, "float64"))


OURS = {
    "gather": gather,
    "index_select": index_select,
    "take": take,
    "take_along_dim": take_along_dim,
    "scatter": _written("none"),
    "scatter_add": _written("add"),
    "scatter_reduce/sum": _written("none"),
    "scatter_reduce/amax": _written("none"),
    "scatter_reduce/amin": _written("none"),
    "index_add": index_add,
    "index_copy": index_copy,
    "index_fill": index_fill,
    "index_put": index_put,
    "put": put,
    "nn.functional.embedding": embedding,
    "nn.functional.one_hot": one_hot,
    "where": where,
    "masked_fill": masked_fill,
    "topk": topk,
    "sort": sort,
    "msort": lambda x: gc.sort(x, 0),
    "argsort": argsort,
    "kthvalue": kthvalue,
    "heaviside": heaviside,
}
