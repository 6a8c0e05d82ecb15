"""Rules about axes: layouts of images, and sums and broadcasts over middle axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.check.prove.rule import Draw, Drawing, Rule, rule
from graphc.ir.build import Value
from graphc.ir.op import Op
from graphc.ir.tensor_type import N
from graphc.ops.conv import Conv
from graphc.ops.elementwise import Add, Div, Mul, Neg, Power
from graphc.ops.functions import Exp, Sigmoid
from graphc.ops.pad import Pad
from graphc.ops.select import Relu, ReluGrad, Where
from graphc.ops.shape import Cast, Transpose, channels_first
from graphc.ops.shape import channels_last as to_last
from graphc.ops.slicing import Concat, Slice
from graphc.ops.sums import Sum
from passes.channels_last import channels_last
from passes.middle_axes import middle_axes

# ------------------------------------------------------------------ middle_axes


@rule(middle_axes, sizes="a b c", forms=[((1,),), ((1, 2),), ((0, 2),), ((1, 3),)])
def middle_sum(d: Drawing, axes: tuple[int, ...]) -> Value:
    """Rewrite `sum(x, axes)` to `sums of matmul(ones, x)`."""
    return d.apply(Sum(axes), d.input("x", N, "a", "b", "c"))


@rule(
    middle_axes,
    given="for functions of two elements",
    sizes="a b",
    forms=[(Add(),), (Mul(),), (Div(),)],
)
def middle_operand(d: Drawing, op: Op) -> Value:
    """Rewrite `f(x, k)` to `f(x, broadcast_to(k))`."""
    return d.apply(op, d.input("x", N, "a", "b"), d.input("k", N, 1, "b"))


# ------------------------------------------------------------------ channels_last


def _layout(**options: Any) -> Callable[[Draw], Rule]:
    return rule(channels_last, **{"sizes": "h w c", **options})


def _image(d: Drawing, name: str = "p", height: str = "h", channels: str = "c") -> Value:
    """Return an image that is transposed to channels first, in a net with a convolution."""
    if "net" not in d.builder.nodes:
        x, w = d.input("net", N, 4, 3), d.input("filter", 2, 3, 2)
        d.output(d.apply(Conv((1,), (1,)), x, w), "other")
    return d.apply(Transpose((0, 3, 1, 2)), d.input(name, N, height, "w", channels))


def _last(d: Drawing, value: Value) -> Value:
    return d.apply(Transpose((0, 2, 3, 1)), value)


@_layout()
def channels_back(d: Drawing) -> Value:
    """Rewrite `last(first(p))` to `p`."""
    return _last(d, _image(d))


@_layout(
    given="for functions of one element",
    forms=[(Relu(),), (Exp(),), (Neg(),), (Power(2.0),), (Sigmoid(),), (Cast("float32"),)],
)
def channels_unary(d: Drawing, op: Op) -> Value:
    """Rewrite `last(f(first(p)))` to `f(p)`."""
    return _last(d, d.apply(op, _image(d)))


@_layout(given="for functions of two elements", forms=[(Add(),), (Div(),), (ReluGrad(),)])
def channels_binary(d: Drawing, op: Op) -> Value:
    """Rewrite `last(f(first(p), first(q)))` to `f(p, q)`."""
    return _last(d, d.apply(op, _image(d), _image(d, "q")))


@_layout(
    given="v of (c, 1, 1), (1, 1, 1), (h, w) or ()",
    forms=[("c", 1, 1), (1, 1, 1), ("h", "w"), (), (1, "c", 1, 1), ("c", "h", 1)],
)
def channels_broadcast(d: Drawing, *dims: int | str) -> Value:
    """Rewrite `last(first(p) + v)` to `p + v`."""
    return _last(d, _image(d) + d.input("v", *dims))


@_layout(given="b of p's shape, its channels first")
def channels_mixed(d: Drawing) -> Value:
    """Rewrite `last(first(p) + b)` to `p + last(b)`."""
    return _last(d, _image(d) + d.input("b", N, "c", "h", "w"))


@_layout()
def channels_where(d: Drawing) -> Value:
    """Rewrite `last(where(first(p) > 0, first(p), first(q)))` to `where(p > 0, p, q)`."""
    p, q = _image(d), _image(d, "q")
    return _last(d, d.apply(Where(), p > d.filled(0.0), p, q))


@_layout(sizes="h w c k")
def channels_concat(d: Drawing) -> Value:
    """Rewrite `last(concat(first(p), first(q), channels))` to `concat(p, q, channels)`."""
    return _last(d, d.apply(Concat(1), _image(d), _image(d, "q", channels="k")))


@_layout(sizes="h w c k")
def space_concat(d: Drawing) -> Value:
    """Rewrite `last(concat(first(p), first(q), height))` to `concat(p, q, height)`."""
    return _last(d, d.apply(Concat(2), _image(d), _image(d, "q", height="k")))


@_layout(from_zero="start stop")
def channels_slice(d: Drawing) -> Value:
    """Rewrite `last(first(p)[:, start:stop])` to `p[..., start:stop]`."""
    return _last(d, d.apply(Slice(((1, d.start, d.stop, 1),)), _image(d)))


@_layout(from_zero="start stop", forms=[(1,), (2,)])
def space_slice(d: Drawing, step: int) -> Value:
    """Rewrite `last(first(p)[:, :, start:stop:step])` to `p[:, start:stop:step]`."""
    return _last(d, d.apply(Slice(((2, d.start, d.stop, step),)), _image(d)))


@_layout(from_zero="i j k")
def channels_pad(d: Drawing) -> Value:
    """Rewrite `last(pad(first(p)))` to `pad(p)`."""
    pads = ((0, 0), (d.k, 0), (d.i, d.j), (0, d.j))
    return _last(d, d.apply(Pad(pads, 0.5), _image(d)))


@_layout(given="also where transposes are reshapes")
def channels_reshaped(d: Drawing) -> Value:
    """Rewrite `last(f(first(conv)))` to `f(conv)`."""
    made = d.apply(Conv((1, 1), (1, 1)), d.input("x", N, "h", "w", 1), d.input("f", 1, 1, 1, "c"))
    return to_last(d.apply(Relu(), channels_first(made)))
