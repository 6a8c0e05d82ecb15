"""PyTorch's functions of shapes, by graphc: nothing is computed, numbers are moved."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import graphc as gc
from tests.ops.opinfo.refused import refuse

Value = gc.Value


def _flat(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes as several arguments or as one."""
    return tuple(given[0]) if given and not isinstance(given[0], int) else given


def reshape(x: Value, *shape: Any) -> Value:
    return gc.reshape(x, _flat(shape))


def flatten(x: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    if not x.type.rank:
        return gc.reshape(x, (1,))
    first, last = start_dim % x.type.rank, end_dim % x.type.rank
    if (first, last) == (1, x.type.rank - 1):
        return gc.flatten(x)
    middle = prod(x.shape[first : last + 1])
    return gc.reshape(x, (*x.shape[:first], middle, *x.shape[last + 1 :]))


def unflatten(x: Value, dim: int, sizes: Any) -> Value:
    place = dim % x.type.rank
    known = prod(size for size in sizes if size != -1)
    whole = [x.shape[place] // known if size == -1 else size for size in sizes]
    return gc.reshape(x, (*x.shape[:place], *whole, *x.shape[place + 1 :]))


def squeeze(x: Value, dim: Any = None) -> Value:
    if dim is None:
        return gc.squeeze(x)
    axes = (dim,) if isinstance(dim, int) else dim
    ones = [axis for axis in axes if x.type.rank and x.shape[axis] == 1]
    return gc.squeeze(x, ones)


def expand(x: Value, *shape: Any) -> Value:
    wanted = _flat(shape)
    more = len(wanted) - x.type.rank
    sizes = (x.shape[i - more] if size == -1 else size for i, size in enumerate(wanted))
    return gc.broadcast_to(x, tuple(sizes))


def broadcast_tensors(*values: Value) -> list[Value]:
    shape: Any = values[0].shape
    for other in values[1:]:
        shape = gc.expand(other, shape).shape
    return [gc.expand(value, shape) for value in values]


def permute(x: Value, *dims: Any) -> Value:
    return gc.transpose(x, [dim % x.type.rank for dim in _flat(dims)])


def transpose(x: Value, dim0: int, dim1: int) -> Value:
    order = list(range(x.type.rank))
    if order:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return gc.transpose(x, order)


def movedim(x: Value, source: Any, destination: Any) -> Value:
    pairs = zip(*((d,) if isinstance(d, int) else d for d in (destination, source)), strict=True)
    moved = {to % x.type.rank: axis % x.type.rank for to, axis in pairs}
    rest = iter(axis for axis in range(x.type.rank) if axis not in moved.values())
    return gc.transpose(x, [moved[i] if i in moved else next(rest) for i in range(x.type.rank)])


def transpose_two(x: Value) -> Value:
    return gc.transpose(x) if x.type.rank == 2 else gc.reshape(x, x.shape)


def cat(values: Any, dim: int = 0) -> Value:
    return gc.concat(values, dim)


def stack(values: Any, dim: int = 0) -> Value:
    return gc.stack(values, dim)


def atleast(rank: int) -> Any:
    def one(x: Value) -> Value:
        if x.type.rank >= rank:
            return gc.reshape(x, x.shape)
        places = {(2, 0): (0, 1), (2, 1): 0, (3, 0): (0, 1, 2), (3, 1): (0, 2), (3, 2): 2}
        return gc.unsqueeze(x, places.get((rank, x.type.rank), 0))

    def function(*given: Any) -> Any:
        values = given[0] if isinstance(given[0], (list, tuple)) else given
        found = [one(value) for value in values]
        return found[0] if isinstance(given[0], Value) and len(given) == 1 else found

    return function


def _stacked(rank: int, axis: int) -> Any:
    def function(values: Any) -> Value:
        parts = [atleast(rank)(value) for value in values]
        return gc.concat(parts, 0 if axis == 1 and parts[0].type.rank == 1 else axis)

    return function


def column_stack(values: Any) -> Value:
    columns = [gc.reshape(v, (-1, 1)) if v.type.rank < 2 else v for v in values]
    return gc.concat(columns, 1)


def split(x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    whole = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - start) for start in range(0, whole, sizes)]
    refuse("a part without entries", 0 in sizes)
    return gc.split(x, list(sizes), dim)


def chunk(x: Value, chunks: int, dim: int = 0) -> list[Value]:
    return split(x, -(-x.shape[dim] // chunks), dim)


def tensor_split(x: Value, parts: Any, dim: int = 0) -> list[Value]:
    refuse("the borders are numbers of the net", isinstance(parts, Value))
    size = x.shape[dim]
    if isinstance(parts, int):
        if size % parts == 0:
            return gc.split(x, parts, dim)
        more = size % parts
        lengths = [size // parts + (i < more) for i in range(parts)]
    else:
        borders = [0, *(min(b % size if b < 0 else b, size) for b in parts), size]
        lengths = [stop - start for start, stop in pairwise(borders)]
    refuse("a part without entries", min(lengths) < 1)
    return gc.split(x, lengths, dim)


def unbind(x: Value, dim: int = 0) -> list[Value]:
    return [gc.squeeze(part, dim) for part in gc.split(x, x.shape[dim], dim)]


def tile(x: Value, *times: Any) -> Value:
    counts = _flat(times)
    refuse("nothing is left", 0 in counts)
    more = max(0, len(counts) - x.type.rank)
    wide = gc.reshape(x, (1,) * more + x.shape)
    return gc.tile(wide, (1,) * (wide.type.rank - len(counts)) + counts)


def repeat_interleave(
    x: Value, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> Value:
    refuse("each entry has a number of times of its own", isinstance(repeats, Value))
    flat = gc.reshape(x, (-1,)) if dim is None else x
    return gc.repeat(flat, repeats, 0 if dim is None else dim)


def flip(x: Value, dims: Any) -> Value:
    return gc.flip(x, dims)


def roll(x: Value, shifts: Any, dims: Any = None) -> Value:
    if dims is None or dims == ():
        shift = shifts if isinstance(shifts, int) else shifts[0]
        return gc.reshape(gc.roll(gc.reshape(x, (-1,)), shift), x.shape)
    several = (shifts,) if isinstance(shifts, int) else shifts
    for shift, dim in zip(several, (dims,) if isinstance(dims, int) else dims, strict=True):
        x = gc.roll(x, shift, dim)
    return x


def rot90(x: Value, k: int = 1, dims: Any = (0, 1)) -> Value:
    first, second = dims
    turns = k % 4
    if turns == 2:
        return gc.flip(x, (first, second))
    turned = x if turns == 0 else transpose(x, first, second)
    if turns == 0:
        return gc.reshape(x, x.shape)
    return gc.flip(turned, first if turns == 1 else second)


def _cut(x: Value, dim: int, part: Any) -> Value:
    return x[(slice(None),) * (dim % x.type.rank) + (part,)]


def narrow(x: Value, dim: int, start: Any, length: int) -> Value:
    refuse("the start is a number of the net", isinstance(start, Value))
    refuse("a dimension of 0", not length)
    first = start % x.shape[dim] if start < 0 else start
    return _cut(x, dim, slice(first, first + length))


def slice_(
    x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    return _cut(x, dim, slice(start, end, step))


def getitem(x: Value, key: Any) -> Value:
    if isinstance(key, (list, Value)):
        refuse("masks as indices", isinstance(key, Value) and key.dtype == "bool")
        return gc.gather(x, key)
    parts = key if isinstance(key, tuple) else (key,)
    refuse("indexed by lists, values or None", any(isinstance(p, (list, Value)) for p in parts))
    return x[key]


def diff(x: Value, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Value:
    parts = [part for part in (prepend, x, append) if part is not None]
    if n and len(parts) > 1:
        x = gc.concat(parts, dim)
    refuse("nothing is left", n >= x.shape[dim])
    for _ in range(n):
        x = _cut(x, dim, slice(1, None)) - _cut(x, dim, slice(0, -1))
    return gc.reshape(x, x.shape)


def pixel_shuffle(x: Value, upscale_factor: int) -> Value:
    r = upscale_factor
    *rows, channels, height, width = x.shape
    n, more = len(rows), channels // r**2
    apart = gc.reshape(x, (*rows, more, r, r, height, width))
    order = [*range(n + 1), n + 3, n + 1, n + 4, n + 2]
    return gc.reshape(gc.transpose(apart, order), (*rows, more, height * r, width * r))


def pixel_unshuffle(x: Value, downscale_factor: int) -> Value:
    r = downscale_factor
    *rows, channels, height, width = x.shape
    n = len(rows)
    apart = gc.reshape(x, (*rows, channels, height // r, r, width // r, r))
    order = [*range(n + 1), n + 2, n + 4, n + 1, n + 3]
    return gc.reshape(gc.transpose(apart, order), (*rows, channels * r**2, height // r, width // r))


def channel_shuffle(x: Value, groups: int) -> Value:
    n, channels, *space = x.shape
    apart = gc.reshape(x, (n, groups, channels // groups, *space))
    return gc.reshape(transpose(apart, 1, 2), x.shape)


def same(x: Value, *args: Any, **more: Any) -> Value:
    return gc.reshape(x, x.shape)


def meshgrid(*given: Any, indexing: str = "ij") -> list[Value]:
    values = given[0] if isinstance(given[0], (list, tuple)) else given
    order = list(range(len(values)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    sizes = [prod(values[i].shape) for i in order]
    found = []
    for i, value in enumerate(values):
        shape = [1] * len(sizes)
        shape[order.index(i)] = -1
        found.append(gc.broadcast_to(gc.reshape(value, shape), sizes))
    return found


OURS = {
    "reshape": reshape,
    "view": reshape,
    "view_copy": reshape,
    "reshape_as": lambda x, other: gc.reshape(x, other.shape),
    "view_as": lambda x, other: gc.reshape(x, other.shape),
    "flatten": flatten,
    "ravel": flatten,
    "unflatten": unflatten,
    "squeeze": squeeze,
    "squeeze_copy": squeeze,
    "squeeze/multiple": squeeze,
    "unsqueeze": lambda x, dim: gc.unsqueeze(x, dim),
    "unsqueeze_copy": lambda x, dim: gc.unsqueeze(x, dim),
    "expand": expand,
    "expand_copy": expand,
    "expand_as": lambda x, other: gc.broadcast_to(x, other.shape),
    "broadcast_to": expand,
    "broadcast_tensors": broadcast_tensors,
    "permute": permute,
    "permute_copy": permute,
    "transpose": transpose,
    "transpose_copy": transpose,
    "movedim": movedim,
    "T": transpose_two,
    "t": transpose_two,
    "t_copy": transpose_two,
    "H": transpose_two,
    "mT": lambda x: transpose(x, -2, -1),
    "mH": lambda x: transpose(x, -2, -1),
    "cat": cat,
    "stack": stack,
    "hstack": _stacked(1, 1),
    "vstack": _stacked(2, 0),
    "dstack": _stacked(3, 2),
    "column_stack": column_stack,
    "atleast_1d": atleast(1),
    "atleast_2d": atleast(2),
    "atleast_3d": atleast(3),
    "split": split,
    "split/list_args": split,
    "split_with_sizes": split,
    "split_with_sizes_copy": split,
    "unsafe_split": split,
    "chunk": chunk,
    "unsafe_chunk": chunk,
    "tensor_split": tensor_split,
    "hsplit": lambda x, parts: tensor_split(x, parts, 1 if x.type.rank > 1 else 0),
    "vsplit": lambda x, parts: tensor_split(x, parts, 0),
    "dsplit": lambda x, parts: tensor_split(x, parts, 2),
    "unbind": unbind,
    "unbind_copy": unbind,
    "tile": tile,
    "repeat": tile,
    "repeat_interleave": repeat_interleave,
    "flip": flip,
    "fliplr": lambda x: gc.flip(x, 1),
    "flipud": lambda x: gc.flip(x, 0),
    "roll": roll,
    "rot90": rot90,
    "tril": lambda x, diagonal=0: gc.tril(x, diagonal),
    "triu": lambda x, diagonal=0: gc.triu(x, diagonal),
    "narrow": narrow,
    "narrow_copy": narrow,
    "select": lambda x, dim, index: _cut(x, dim, index),
    "slice": slice_,
    "__getitem__": getitem,
    "diff": diff,
    "meshgrid/list_of_tensors": meshgrid,
    "meshgrid/variadic_tensors": meshgrid,
    "nn.functional.pixel_shuffle": pixel_shuffle,
    "nn.functional.pixel_unshuffle": pixel_unshuffle,
    "nn.functional.channel_shuffle": channel_shuffle,
    "clone": same,
    "contiguous": same,
    "alias_copy": same,
}
