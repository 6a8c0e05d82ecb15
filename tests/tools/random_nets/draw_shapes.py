"""Functions along axes, of shapes, of indices, and products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .calls import Rows, words
from .draw_elements import partner, spelled
from .drawer import Drawer, Var, touches

REDUCTIONS = words("sum mean max min logsumexp sum_squares l1_norm l2_norm")


def reduction(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v = d.real()
        axes = d.axes(v)
        d.call(f"gc.{name}", v, axes, d.chance(0.4), mixed=touches(v, axes))

    return draw


def prod(d: Drawer) -> None:
    v = d.small(d.real(low=1))
    axes = d.axes(v, batch=False)
    if axes is not None or v.fixed():
        d.call("gc.prod", v, axes, d.chance(0.4))


def scan(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v = d.real(low=1)
        axis = d.axis(v, batch=name == "cumsum")
        if axis is not None:
            v = v if name == "cumsum" else d.small(v)
            options = {
                "exclusive": d.chance(0.3) and not touches(v, axis),
                "reverse": d.chance(0.3),
            }
            d.call(f"gc.{name}", v, axis, mixed=touches(v, axis), **options)

    return draw


def soft(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v = d.real(low=1)
        axis = d.axis(v)
        d.call(f"gc.{name}", v, axis, mixed=touches(v, axis))

    return draw


def arg(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v = d.real(low=1)
        axis = d.axis(v)
        d.call(
            f"gc.{name}",
            v,
            axis,
            d.chance(0.3),
            last=d.chance(0.2) and not touches(v, axis),
            mixed=touches(v, axis),
        )

    return draw


def topk(d: Drawer) -> None:
    v = d.real(low=1)
    axis = d.axis(v, batch=False)
    if axis is not None:
        size = v.shape[axis]
        assert isinstance(size, int)
        d.call("gc.topk", v, d.whole(1, size), axis, largest=d.chance(0.7))


def ordered(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v = d.real(low=1)
        axis = d.axis(v, batch=False)
        if axis is not None:
            d.call(f"gc.{name}", v, axis, descending=d.chance(0.4), mixed=touches(v, axis))

    return draw


# Shapes.


def reshape(d: Drawer) -> None:
    v = d.real()
    width, at = v.width, [i for i, dim in enumerate(v.shape) if isinstance(dim, Rows)]
    if at and at != [0]:
        return
    front, width = ([Rows(d.one(divisors(width)))], width) if at else ([], width)
    width //= front[0].times if front else 1
    rest: list[Any] = []
    for _ in range(d.whole(0, 2)):
        rest.append(d.one(divisors(width)))
        width //= rest[-1]
    rest.append(width)
    if d.chance(0.3):
        rest[d.whole(0, len(rest) - 1)] = -1
    d.call("gc.reshape", v, tuple(front + rest))


def divisors(n: int) -> list[int]:
    """Return the divisors of a number."""
    return [k for k in range(1, n + 1) if n % k == 0]


def flatten(d: Drawer) -> None:
    d.call("gc.flatten", d.batched(low=1))


def transpose(d: Drawer) -> None:
    v = d.real(low=2)
    if d.chance(0.3):
        d.call("gc.transpose", v)
    elif d.chance(0.5) and v.batched:
        d.call("gc.transpose", v, (0, *(1 + int(a) for a in d.rng.permutation(v.rank - 1))))
    else:
        d.call("gc.transpose", v, tuple(int(a) for a in d.rng.permutation(v.rank)))


def concat(d: Drawer) -> None:
    v = d.real(low=1)
    axis = d.axis(v)
    assert axis is not None
    others = [o for o in d.pool if o.real and same_but(o, v, axis % v.rank)]
    parts = [v] + [d.one(others) for _ in range(d.whole(1, 2))]
    d.call(
        "gc.concat", [parts[i] for i in d.rng.permutation(len(parts))], axis, mixed=touches(v, axis)
    )


def same_but(o: Var, v: Var, axis: int) -> bool:
    """Return whether two shapes agree in all but an axis."""
    agree = o.rank == v.rank and all(
        a == b for i, (a, b) in enumerate(zip(o.shape, v.shape, strict=True)) if i != axis
    )
    return agree and isinstance(o.shape[axis], Rows) == isinstance(v.shape[axis], Rows)


def split(d: Drawer) -> None:
    v = d.real(low=1)
    axis = d.axis(v, batch=False)
    if axis is None:
        return
    size = v.shape[axis]
    assert isinstance(size, int)
    if d.chance(0.5):
        d.call("gc.split", v, d.one([k for k in divisors(size) if k <= 6]), axis)
    else:
        cuts = sorted({d.whole(1, size) for _ in range(2)} | {size})
        d.call("gc.split", v, [b - a for a, b in zip([0, *cuts], cuts, strict=False)], axis)


def stack(d: Drawer) -> None:
    v = d.real(high=3)
    others = [o for o in d.pool if o.real and o.shape == v.shape]
    parts = [v] + [d.one(others) for _ in range(d.whole(0, 2))]
    d.call("gc.stack", parts, d.whole(0, v.rank) - (v.rank + 1 if d.chance(0.3) else 0))


def squeeze(d: Drawer) -> None:
    v = d.real()
    ones = [i for i, dim in enumerate(v.shape) if dim == 1]
    if not ones:
        v = d.call("gc.unsqueeze", v, d.whole(1 if v.batched else 0, v.rank))
        ones = [i for i, dim in enumerate(v.shape) if dim == 1]
    d.call("gc.squeeze", v, d.one([None, d.one(ones)] if v.fixed() else [d.one(ones), tuple(ones)]))


def unsqueeze(d: Drawer) -> None:
    v = d.real(high=3)
    d.call("gc.unsqueeze", v, d.one([d.whole(0, v.rank), -1, (v.rank, v.rank + 1)]))


def pad(d: Drawer) -> None:
    v = d.real(low=1)
    mode = d.one(words("constant edge reflect wrap"))
    pads: list[Any] = []
    for dim in v.shape:
        most = 0 if isinstance(dim, Rows) else min(3, dim - 1 if mode == "reflect" else dim)
        pads.append(d.one([(d.whole(0, most), d.whole(0, most)), d.whole(0, most)]))
    value = (d.number(),) if mode == "constant" and d.chance(0.5) else ()
    d.call("gc.pad", v, pads, *value, mode=mode)


def spread(name: str) -> Callable[[Drawer], None]:
    """Return what broadcasts: a parameter to all rows as well."""

    def draw(d: Drawer) -> None:
        v = d.real(high=3)
        if d.chance(0.5):
            v = d.parameter(d.sizes(d.whole(0, 2), 60))
        shape = tuple(d.whole(2, 6) if dim == 1 and d.chance(0.7) else dim for dim in v.shape)
        if v.fixed() and d.chance(0.7):
            front: Any = Rows(d.one([1, 1, 1, 2]))
            shape = (front, *shape[1:]) if v.shape[:1] == (1,) else (front, *shape)
        elif d.chance(0.4) and not touches(v, None):
            shape = (d.whole(1, 5), *shape)
        if name == "expand" and d.chance(0.5):
            shape = shape[1:] if len(shape) > 1 else shape
            shape = tuple(1 if d.chance(0.3) else dim for dim in shape)
        d.call(f"gc.{name}", v, shape)

    return draw


def tile(d: Drawer) -> None:
    v = d.real(low=1, high=3)
    d.call("gc.tile", v, [1 if isinstance(dim, Rows) else d.whole(1, 3) for dim in v.shape])


def repeat(d: Drawer) -> None:
    v = d.real(low=1, high=3)
    axis = d.axis(v, batch=False)
    if axis is not None:
        d.call("gc.repeat", v, d.whole(1, 3), axis)


def resize(d: Drawer) -> None:
    v = d.batched(low=2, high=4)
    axes = sorted({d.whole(1, v.rank - 1) for _ in range(2)})
    options = {
        "axes": axes,
        "mode": d.one(["nearest", "linear"]),
        "places": d.one(["half_pixel", "asymmetric", "align_corners"]),
        "rounding": d.one(words("round_prefer_floor round_prefer_ceil floor ceil")),
    }
    if options["mode"] == "linear":
        del options["rounding"]
    d.call("gc.resize", v, [d.whole(1, 9) for _ in axes], **options)


def flip(d: Drawer) -> None:
    v = d.real(low=1)
    axes = d.axes(v, batch=False)
    if axes is not None or v.fixed():
        d.call("gc.flip", v, axes)


def roll(d: Drawer) -> None:
    v = d.real(low=1)
    axis = d.axis(v, batch=False)
    if axis is not None:
        d.call("gc.roll", v, d.whole(-3, 3), axis)


def triangle(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v = d.real(low=2)
        if v.fixed(v.rank - 2):
            d.call(f"gc.{name}", v, d.whole(-2, 2))

    return draw


def sliced(d: Drawer) -> None:
    v = d.real(low=1)
    key: list[Any] = []
    for dim in v.shape:
        if isinstance(dim, Rows):
            key.append(slice(None))
            continue
        start = d.whole(0, dim - 1)
        stop = d.whole(start + 1, dim)
        step = d.one([1, 1, 2, 3])
        back = slice(stop - 1, start - 1 if start else None, -step)
        key.append(d.one([slice(start, stop, step), start, start - dim, slice(None), back]))
    if d.chance(0.2):
        key.append(...)
    elif d.chance(0.3):
        key = key[: d.whole(1, len(key))]
    d.call("operator.getitem", v, tuple(key))


# Indices.


def one_hot(d: Drawer) -> None:
    d.call("gc.one_hot", ids(d, 6), 6, dtype=d.dtype)


def ids(d: Drawer, count: int, shape: Any = None) -> Var:
    """Return indices below a number: fed, or computed."""
    if shape is not None:
        return d.input(shape, "ids", count)
    kind = d.rng.random()
    if kind < 0.6:
        return d.input((Rows(), *d.sizes(d.whole(0, 2), 40)), "ids", count)
    v = d.batched(low=2)
    found: Var = d.call("gc.argmax", v, -1)
    return d.call("gc.mod", found, count)  # type: ignore[no-any-return]


def scores(d: Drawer, least: int = 1) -> Var:
    """Return floats (N, C)."""
    v = d.pick(lambda v: v.real and v.batched and v.rank == 2 and v.shape[1] >= least)
    if v is not None and d.chance(0.8):
        return v
    v = d.batched(low=2)
    return d.call("gc.affine", v, max(least, d.size()), name=d.name("fc"), trained=True)  # type: ignore[no-any-return]


def pick(d: Drawer) -> None:
    v = scores(d)
    d.call("gc.pick", v, ids(d, v.width, (Rows(),)))


def gather(d: Drawer) -> None:
    v = d.real(low=1, high=3)
    axis = d.axis(v, batch=False)
    if axis is None:
        return
    size = v.shape[axis]
    assert isinstance(size, int)
    indices: Any = d.rng.integers(0, size, d.sizes(d.whole(0, 2), 20))
    if v.fixed() and d.chance(0.6):
        indices = ids(d, size, (Rows(), *d.sizes(d.whole(0, 1), 10)))
    d.call("gc.gather", v, np.asarray(indices) if not isinstance(indices, Var) else indices, axis)


def gather_elements(d: Drawer) -> None:
    v = d.batched(low=2, high=3)
    axis = d.axis(v, batch=False)
    assert axis is not None
    size = v.shape[axis]
    assert isinstance(size, int)
    shape = list(v.shape)
    shape[axis] = d.whole(1, 5)
    d.call("gc.gather_elements", v, ids(d, size, tuple(shape)), axis)


def gather_nd(d: Drawer) -> None:
    if d.chance(0.5):
        v = d.batched(low=2, high=3)
        size = v.shape[1]
        assert isinstance(size, int)
        d.call(
            "gc.gather_nd", v, ids(d, size, (Rows(), *d.sizes(d.whole(0, 1), 5), 1)), batch_dims=1
        )
    else:
        v = d.parameter(d.sizes(d.whole(1, 3), 100))
        depth = d.whole(1, v.rank)
        least = min(int(dim) for dim in v.shape[:depth])  # type: ignore[arg-type]
        d.call("gc.gather_nd", v, ids(d, least, (Rows(), depth)))


def scatter_elements(d: Drawer) -> None:
    v = d.batched(low=2, high=3)
    axis = d.axis(v, batch=False)
    assert axis is not None
    size = v.shape[axis]
    assert isinstance(size, int)
    shape = list(v.shape)
    shape[axis] = d.whole(1, 3)
    updates = d.input(tuple(shape))
    reduction = d.one(words("none add max min"))
    d.call("gc.scatter_elements", v, ids(d, size, tuple(shape)), updates, axis, reduction=reduction)


def scatter_nd(d: Drawer) -> None:
    shape = d.sizes(d.whole(1, 2), 60)
    v, many = d.parameter(shape), d.whole(1, 4)
    indices = d.rng.integers(0, shape[0], (many, 1))
    updates = d.parameter((many, *shape[1:]))
    reduction = d.one(words("none add max min"))
    d.call("gc.scatter_nd", v, indices, updates, reduction=reduction)


# Products.


def matmul(d: Drawer) -> None:
    kind = d.rng.random()
    v = d.real(low=1)
    if kind < 0.15:
        size = d.whole(1, 6)
        square = d.parameter((size, size))
        spelled(d, "gc.matmul", square, d.one([square, d.call("gc.transpose", square)]))
    elif kind < 0.3 and v.rank >= 2:
        axes = [*range(v.rank - 2), v.rank - 1, v.rank - 2]
        turned = d.call("gc.transpose", v, axes)
        mixed = touches(v, [v.rank - 1, v.rank - 2])
        spelled(d, "gc.matmul", *d.one([(v, turned), (turned, v)])) if not mixed else None
    elif kind < 0.4:
        other = partner(d, v)
        if v.rank == other.rank == 1 and v.shape == other.shape:
            d.call("gc.matmul", v, other, mixed=touches(v, None))
    elif isinstance(v.shape[-1], int):
        inner = v.shape[-1]
        front = () if v.rank < 3 or d.chance(0.5) else d.one([v.shape[:-2], (1,)])
        front = tuple(1 if isinstance(dim, Rows) else dim for dim in front)
        right = d.parameter(d.one([(*front, inner, d.size()), (inner,)]))
        spelled(d, "gc.matmul", v, right)


def matmul_left(d: Drawer) -> None:
    v = d.real(low=2, high=3)
    inner = v.shape[-2]
    if isinstance(inner, int):
        spelled(d, "gc.matmul", d.parameter(d.one([(d.size(), inner), (inner,)])), v)


DRAWS: dict[str, Callable[[Drawer], None]] = {
    **{name: reduction(name) for name in REDUCTIONS},
    **{name: scan(name) for name in ("cumsum", "cumprod")},
    **{name: soft(name) for name in ("softmax", "log_softmax")},
    **{name: arg(name) for name in ("argmax", "argmin")},
    **{name: ordered(name) for name in ("sort", "argsort")},
    **{name: spread(name) for name in ("broadcast_to", "expand")},
    **{name: triangle(name) for name in ("tril", "triu")},
    "prod": prod,
    "topk": topk,
    "reshape": reshape,
    "flatten": flatten,
    "transpose": transpose,
    "concat": concat,
    "split": split,
    "stack": stack,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "pad": pad,
    "tile": tile,
    "repeat": repeat,
    "resize": resize,
    "flip": flip,
    "roll": roll,
    "getitem": sliced,
    "one_hot": one_hot,
    "pick": pick,
    "gather": gather,
    "gather_elements": gather_elements,
    "gather_nd": gather_nd,
    "scatter_elements": scatter_elements,
    "scatter_nd": scatter_nd,
    "matmul": matmul,
    "matmul_left": matmul_left,
}
