"""Rules of layouts, shards, recomputation and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphc.check.prove.rule import EPS, F64, AnyOp, Draw, Drawing, rule
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ir.op import Op
from graphc.ir.tensor_type import N
from graphc.ops.autodiff import vjp
from graphc.ops.conv import Conv
from graphc.ops.dropout import DropoutMask
from graphc.ops.elementwise import Add, Div, Mul, Neg, Power, Sub, unbroadcast
from graphc.ops.functions import Exp, Sigmoid
from graphc.ops.linalg import Affine, MatMul
from graphc.ops.norm import (
    BatchNormTrain,
)
from graphc.ops.pad import Pad
from graphc.ops.reduce import Mean, Sum
from graphc.ops.select import Greater, Relu, ReluGrad, Where
from graphc.ops.shape import Cast, Transpose, channels_first, channels_last
from graphc.ops.slicing import Concat, Slice, SliceGrad
from graphc.ops.source import constant, draws, seed
from passes.backward import Backward
from passes.channels_last import channels_last as keep_channels_last
from passes.data_parallel import DataParallel
from passes.pipeline import Pass
from passes.rematerialize import Rematerialize
from passes.repeat_elements import repeat_elements
from passes.shard import Shard

# ------------------------------------------------------------------ channels_last

_SPACE = {"h": 3, "w": 5, "c": 2}


def _image(d: Drawing, name: str = "p", **sizes: int) -> Value:
    """Return an image that is transposed to channels first, in a net with a convolution."""
    if "net" not in d.builder.nodes:
        x, w = d.input("net", N, 4, 3), d.input("filter", 2, 3, 2)
        d.output(d.apply(Conv((1,), (1,)), x, w), "other")
    height, width, channels = (sizes.get(dim, d.sizes[dim]) for dim in ("h", "w", "c"))
    return d.apply(Transpose((0, 3, 1, 2)), d.input(name, N, height, width, channels))


def _back(d: Drawing, value: Value) -> None:
    d.output(d.apply(Transpose((0, 2, 3, 1)), value))


def _layout(left: str, right: str, **options: Any) -> Callable[[Any], Any]:
    options = {"sizes": _SPACE, **options}
    return rule("channels_last", left, right, keep_channels_last, **options)


@_layout("last(first(p))", "p")
def channels_back(d: Drawing) -> None:
    _back(d, _image(d))


@_layout(
    "last(f(first(p)))",
    "f(p)",
    given="for functions of one element",
    forms=[(Relu(),), (Exp(),), (Neg(),), (Power(2.0),), (Sigmoid(),), (Cast("float32"),)],
)
def channels_unary(d: Drawing, op: Op) -> None:
    _back(d, d.apply(op, _image(d)))


@_layout("last(f(first(p), first(q)))", "f(p, q)", given="for functions of two elements",
         forms=[(Add(),), (Div(),), (ReluGrad(),)])  # fmt: skip
def channels_binary(d: Drawing, op: Op) -> None:
    _back(d, d.apply(op, _image(d), _image(d, "q")))


@_layout("last(first(p) + v)", "p + v", given="v of (c, 1, 1), (1, 1, 1), (h, w) or ()",
         forms=[("c", 1, 1), (1, 1, 1), ("h", "w"), (), (1, "c", 1, 1), ("c", "h", 1)])  # fmt: skip
def channels_broadcast(d: Drawing, *dims: Any) -> None:
    v = d.input("v", *(d.sizes.get(dim, dim) for dim in dims))
    _back(d, d.apply(Add(), _image(d), v))


@_layout("last(first(p) + b)", "p + last(b)", given="b of p's shape, its channels first")
def channels_mixed(d: Drawing) -> None:
    _back(d, d.apply(Add(), _image(d), d.input("b", N, d.c, d.h, d.w)))


@_layout("last(where(first(p) > 0, first(p), first(q)))", "where(p > 0, p, q)")
def channels_where(d: Drawing) -> None:
    p, q = _image(d), _image(d, "q")
    _back(d, d.apply(Where(), d.apply(Greater(), p, d.filled(0.0)), p, q))


@_layout("last(concat(first(p), first(q), channels))", "concat(p, q, channels)",
         sizes={**_SPACE, "k": 4})  # fmt: skip
def channels_concat(d: Drawing) -> None:
    _back(d, d.apply(Concat(1), _image(d), _image(d, "q", c=d.k)))


@_layout("last(concat(first(p), first(q), height))", "concat(p, q, height)",
         sizes={**_SPACE, "k": 4})  # fmt: skip
def space_concat(d: Drawing) -> None:
    _back(d, d.apply(Concat(2), _image(d), _image(d, "q", h=d.k)))


_CUT = {"start": 1, "stop": 2}


@_layout("last(first(p)[:, start:stop])", "p[..., start:stop]", sizes={**_SPACE, **_CUT},
         from_zero=("start", "stop"))  # fmt: skip
def channels_slice(d: Drawing) -> None:
    _back(d, d.apply(Slice(((1, d.start, d.stop, 1),)), _image(d)))


@_layout("last(first(p)[:, :, start:stop:step])", "p[:, start:stop:step]",
         sizes={**_SPACE, **_CUT}, from_zero=("start", "stop"), forms=[(1,), (2,)])  # fmt: skip
def space_slice(d: Drawing, step: int) -> None:
    _back(d, d.apply(Slice(((2, d.start, d.stop, step),)), _image(d)))


@_layout("last(pad(first(p)))", "pad(p)", from_zero=("i", "j", "k"),
         sizes={**_SPACE, "i": 1, "j": 2, "k": 1})  # fmt: skip
def channels_pad(d: Drawing) -> None:
    op = Pad(((0, 0), (d.k, 0), (d.i, d.j), (0, d.j)), 0.5)
    _back(d, d.apply(op, _image(d)))


@_layout("last(f(first(conv)))", "f(conv)", given="also where transposes are reshapes")
def channels_reshaped(d: Drawing) -> None:
    made = d.apply(Conv((1, 1), (1, 1)), d.input("x", N, d.h, d.w, 1), d.input("f", 1, 1, 1, d.c))
    d.output(channels_last(d.apply(Relu(), channels_first(made))))


# ------------------------------------------------------------------ shards

_SHARDS = {"shards": True, "sizes": {"a": 3}}


def _cut(before: tuple[Any, ...] = (), **options: Any) -> Pass:
    """Return the passes that make the graph of a shard, whose losses are `loss`."""
    options = {"counted": (("loss", "rows"),), **options}

    def run(graph: Graph) -> Graph:
        graph = Shard(**options)(graph)
        for step in before:
            graph = step(graph)
        return DataParallel()(graph)

    return run


def _loss(d: Drawing, value: Value) -> None:
    d.output(value, "loss")
    d.builder.losses.append("loss")


@rule("shard, data_parallel", "mean(rows)", "sum over shards of mean(rows) * share",
      _cut(), **_SHARDS)  # fmt: skip
def shard_mean(d: Drawing) -> None:
    rows = d.apply(Exp(), d.apply(Sum((1,)), d.input("x", N, d.a)))
    _loss(d, d.apply(Mean((0,)), rows))


@rule("shard, data_parallel", "sum(rows)", "sum over shards of sum(rows)",
      _cut(counted=(("loss", "sum"),)), **_SHARDS)  # fmt: skip
def shard_sum(d: Drawing) -> None:
    _loss(d, d.apply(Sum((0, 1)), d.apply(Exp(), d.input("x", N, d.a))))


@rule("shard, data_parallel", "sum(rows * u) / sum(u)",
      "sum over shards of sum(rows * u) / divisor * share", _cut(divisors=("loss.weight",)),
      **_SHARDS, given="if sum(u) is not 0")  # fmt: skip
def shard_weighted_mean(d: Drawing) -> None:
    u, rows = d.input("u", N), d.apply(Sum((1,)), d.apply(Exp(), d.input("x", N, d.a)))
    total = d.apply(Sum((0,)), d.apply(Mul(), rows, u))
    _loss(d, d.apply(Div(), total, d.apply(Sum((0,)), u, name="loss.weight")))


@rule("shard, data_parallel", "gradients of a mean of rows", "sum over shards of the gradients",
      _cut((Backward(("loss",), ("w", "b")),)), before=Backward(("loss",), ("w", "b")),
      shards=True, sizes={"a": 3, "b": 2})  # fmt: skip
def shard_gradients(d: Drawing) -> None:
    w, bias = d.parameter("w", d.a, d.b), d.parameter("b", d.b)
    h = d.apply(Relu(), d.apply(Affine(), d.input("x", N, d.a), w, bias))
    _loss(d, d.apply(Mean((0, 1)), h))


@rule("shard, data_parallel", "batchnorm by statistics of the batch",
      "by sums over shards of their statistics", _cut(synchronise=True), **_SHARDS)  # fmt: skip
def shard_batchnorm(d: Drawing) -> None:
    x = d.input("x", N, d.a)
    average = d.apply(Mean((0,)), x, name="bn.mean")
    square = d.apply(Power(2.0), d.apply(Sub(), x, average))
    d.apply(Mean((0,)), square, name="bn.var")
    h = d.apply(BatchNormTrain(EPS), x, d.input("g", d.a), d.input("s", d.a), name="bn")
    _loss(d, d.apply(Mean((0, 1)), d.apply(Exp(), h)))


@rule("shard", "dropout's mask of the batch", "each shard's, from its first row", _cut(),
      **_SHARDS)  # fmt: skip
def shard_mask(d: Drawing) -> None:
    x = d.input("x", N, d.a)
    mask = d.apply(DropoutMask(x.shape, F64, 0.5, 7), seed(d.builder), draws(d.builder))
    _loss(d, d.apply(Mean((0, 1)), d.apply(Mul(), x, mask)))


# ------------------------------------------------------------------ recomputation


@rule("rematerialize", "f(x), read again by the backward part", "f(x), recomputed there",
      Rematerialize(frozenset({"h", "k"})), given="for any op f")  # fmt: skip
def recompute(d: Drawing) -> None:
    x = d.input("x", N, d.a)
    h = d.apply(AnyOp("f"), x, name="h")
    k = d.apply(AnyOp("g"), h, name="k")
    d.output(d.apply(AnyOp("l"), k))
    first = d.apply(AnyOp("s"), x)
    d.builder.gradients["x"] = d.apply(AnyOp("t"), d.apply(AnyOp("u"), k, first), h).name


def _after(first: Pass, second: Pass) -> Pass:
    return lambda graph: second(first(graph))


@rule("repeat_elements", "f(x), read again by the backward part", "f(x), recomputed there",
      _after(Backward(("loss",), ("x",)), repeat_elements), given="for functions of one element",
      before=Backward(("loss",), ("x",)), sizes={"a": 3})  # fmt: skip
def repeat(d: Drawing) -> None:
    x = d.input("x", N, d.a)
    h = d.apply(Mul(), x, d.apply(Sigmoid(), d.apply(Mul(), x, x)))
    _loss(d, d.apply(Mean((0, 1)), d.apply(Mul(), h, d.apply(Exp(), h))))


# ------------------------------------------------------------------ gradients


def _vjp(of: Mapping[str, str], wrt: str) -> Pass:
    """Return the pass whose output is the gradient by a node, from cotangents by name."""

    def run(graph: Graph) -> Graph:
        b = Builder.extending(graph)
        found = vjp(b, {name: b.value(d) for name, d in of.items()}, [wrt])
        b.outputs["y"] = found[wrt].name
        return b.graph()

    return run


def _formula(make: Callable[[Builder], Value]) -> Pass:
    """Return the pass that adds an output by the general formula."""

    def run(graph: Graph) -> Graph:
        b = Builder.extending(graph)
        b.outputs["y"] = make(b).name
        return b.graph()

    return run


def _sum_of_parts(b: Builder) -> Value:
    parts = [
        b.apply(SliceGrad(b.value("x").shape, b.nodes[part].op.cuts), b.value(f"d{part}"))  # type: ignore[attr-defined]
        for part in ("p", "q", "r")
    ]
    return b.apply(Add(), b.apply(Add(), *parts[:2]), parts[2])


@rule("gradients", "slice_grad(p) + slice_grad(q) + slice_grad(r)", "concat(p, q, r)",
      _vjp({"p": "dp", "q": "dq", "r": "dr"}, "x"), before=_formula(_sum_of_parts),
      sizes={"a": 2, "b": 3, "c": 1}, given="if the slices tile x")  # fmt: skip
def gradients_of_slices(d: Drawing) -> None:
    ends = [0, d.a, d.a + d.b, d.a + d.b + d.c]
    x = d.input("x", N, ends[-1])
    for name, start, stop in zip("qpr", ends, ends[1:], strict=False):
        part = d.apply(Slice(((1, start, stop, 1),)), x, name=name)
        d.input(f"d{name}", *part.shape)


def _power(exponent: float) -> tuple[Draw, Pass]:
    def draw(d: Drawing) -> None:
        x = d.input("x", N, d.a)
        d.input("d", N, d.a)
        d.apply(Power(exponent), x, name="p")

    def general(b: Builder) -> Value:
        slope = b.apply(Power(exponent - 1), b.value("x"))
        return b.apply(Mul(), b.value("d"), b.apply(Mul(), slope, constant(b, exponent, F64)))

    return draw, _formula(general)


for _name, _number, _right in (("power_one_grad", 1.0, "d"), ("square_grad", 2.0, "d * (x * 2)")):
    _draw, _general = _power(_number)
    rule("gradients", f"d * {_number:g} * x ** {_number - 1:g}", _right, _vjp({"p": "d"}, "x"),
         name=_name, before=_general)(_draw)  # fmt: skip


def _batched(b: Builder) -> Value:
    made = b.apply(MatMul(True, False), b.value("x"), b.value("d"))
    return unbroadcast(made, b.value("w"))


@rule("gradients", "sum over matrices of x.T @ d", "rows(x).T @ rows(d)", _vjp({"p": "d"}, "w"),
      before=_formula(_batched), sizes={"a": 2, "b": 3, "c": 4, "e": 5})  # fmt: skip
def gradient_of_shared_matrix(d: Drawing) -> None:
    x, w = d.input("x", d.a, d.b, d.c), d.input("w", d.c, d.e)
    made = d.apply(MatMul(), x, w, name="p")
    d.input("d", *made.shape)
