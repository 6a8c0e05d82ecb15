"""Rules of training steps: shards of a batch, recomputation, and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.check.prove.rule import EPS, F64, AnyOp, Drawing, rule
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import N
from graphc.ops.autodiff import vjp
from graphc.ops.dropout import DropoutMask
from graphc.ops.elementwise import Power
from graphc.ops.functions import Exp, Sigmoid
from graphc.ops.linalg import Affine, MatMul
from graphc.ops.norm import BatchNormTrain
from graphc.ops.reduce import Mean
from graphc.ops.select import Relu
from graphc.ops.slicing import Slice, SliceGrad
from graphc.ops.source import draws, seed
from graphc.ops.sums import Sum, unbroadcast
from passes import Pass
from passes.backward import Backward
from passes.data_parallel import DataParallel
from passes.rematerialize import Rematerialize
from passes.repeat_elements import repeat_elements
from passes.shard import Shard

# ------------------------------------------------------------------ shards


def _in_turn(*steps: Pass) -> Pass:
    """Return the pass that runs several, one after the other."""

    def run(graph: Graph) -> Graph:
        for step in steps:
            graph = step(graph)
        return graph

    return run


def _shards(*between: Pass, kind: str = "rows", **options: Any) -> dict[str, Any]:
    """Return the options of a rule for shards, whose loss counts by that kind of share."""
    cut = Shard(counted=(("loss", kind),), **options)
    rewrite = _in_turn(cut, *between, DataParallel())
    return {"rewrite": rewrite, "by": "shard, data_parallel", "shards": True}


@rule(**_shards())
def shard_mean(d: Drawing) -> None:
    """Rewrite `mean(rows)` to `sum over shards of mean(rows) * share`."""
    d.loss(d.apply(Mean((0,)), d.apply(Exp(), d.apply(Sum((1,)), d.input("x", N, "a")))))


@rule(**_shards(kind="sum"))
def shard_sum(d: Drawing) -> None:
    """Rewrite `sum(rows)` to `sum over shards of sum(rows)`."""
    d.loss(d.apply(Sum((0, 1)), d.apply(Exp(), d.input("x", N, "a"))))


@rule(**_shards(divisors=("loss.weight",)), given="if sum(u) is not 0")
def shard_weighted_mean(d: Drawing) -> None:
    """Rewrite `sum(rows * u) / sum(u)` to `sum over shards of sum(rows * u) / divisor * share`."""
    u, rows = d.input("u", N), d.apply(Sum((1,)), d.apply(Exp(), d.input("x", N, "a")))
    total = d.apply(Sum((0,)), rows * u)
    d.loss(total / d.apply(Sum((0,)), u, name="loss.weight"))


_OF_LAYER = Backward(("loss",), ("w", "b"))


@rule(**_shards(_OF_LAYER), before=_OF_LAYER, sizes="a b")
def shard_gradients(d: Drawing) -> None:
    """Rewrite `gradients of a mean of rows` to `sum over shards of the gradients`."""
    w, bias = d.parameter("w", "a", "b"), d.parameter("b", "b")
    d.loss(d.apply(Mean((0, 1)), d.apply(Relu(), d.apply(Affine(), d.input("x", N, "a"), w, bias))))


@rule(**_shards(synchronise=True))
def shard_batchnorm(d: Drawing) -> None:
    """Rewrite `batchnorm by statistics of the batch` to `by sums of those of shards`."""
    x = d.input("x", N, "a")
    average = d.apply(Mean((0,)), x, name="bn.mean")
    d.apply(Mean((0,)), (x - average) ** 2, name="bn.var")
    h = d.apply(BatchNormTrain(EPS), x, *d.inputs("gs", "a"), name="bn")
    d.loss(d.apply(Mean((0, 1)), d.apply(Exp(), h)))


@rule(**_shards() | {"by": "shard"})
def shard_mask(d: Drawing) -> None:
    """Rewrite `dropout's mask of the batch` to `each shard's, from its first row`."""
    x = d.input("x", N, "a")
    mask = d.apply(DropoutMask(x.shape, F64, 0.5, 7), seed(d.builder), draws(d.builder))
    d.loss(d.apply(Mean((0, 1)), x * mask))


# ------------------------------------------------------------------ recomputation


@rule(Rematerialize(frozenset({"h", "k"})), given="for any op f")
def recompute(d: Drawing) -> Value:
    """Rewrite `f(x), read again by the backward part` to `f(x), recomputed there`."""
    x = d.input("x", N, "a")
    h = d.apply(AnyOp("f"), x, name="h")
    k = d.apply(AnyOp("g"), h, name="k")
    y = d.apply(AnyOp("l"), k)
    upper = d.apply(AnyOp("u"), k, d.apply(AnyOp("s"), x))
    d.builder.gradients["x"] = d.apply(AnyOp("t"), upper, h).name
    return y


_BY_X = Backward(("loss",), ("x",))


@rule(
    _in_turn(_BY_X, repeat_elements),
    by="repeat_elements",
    before=_BY_X,
    given="for functions of one element",
)
def repeat(d: Drawing) -> None:
    """Rewrite `f(x), read again by the backward part` to `f(x), recomputed there`."""
    x = d.input("x", N, "a")
    h = x * d.apply(Sigmoid(), x * x)
    d.loss(d.apply(Mean((0, 1)), h * d.apply(Exp(), h)))


# ------------------------------------------------------------------ gradients


def _output(make: Callable[[Builder], Value]) -> Pass:
    """Return the pass that adds the output `y`."""

    def run(graph: Graph) -> Graph:
        b = Builder.extending(graph)
        b.outputs["y"] = make(b).name
        return b.graph()

    return run


def _gradient(
    general: Callable[[Builder], Value], wrt: str = "x", of: str = "p", **options: Any
) -> dict[str, Any]:
    """Return the options of a rule for the gradient of nodes `p`, ... with cotangents `dp`, ...

    Its left side is the general formula.
    """

    def special(b: Builder) -> Value:
        return vjp(b, {name: b.value(f"d{name}") for name in of}, [wrt])[wrt]

    return {"rewrite": _output(special), "before": _output(general), "by": "gradients", **options}


def _sum_of_parts(b: Builder) -> Value:
    shape = b.value("x").shape
    p, q, r = (
        b.apply(SliceGrad(shape, b.nodes[part].op.cuts), b.value(f"d{part}"))  # type: ignore[attr-defined]
        for part in "pqr"
    )
    return p + q + r


@rule(**_gradient(_sum_of_parts, of="pqr", sizes="a b c", given="if the slices tile x"))
def gradients_of_slices(d: Drawing) -> None:
    """Rewrite `slice_grad(p) + slice_grad(q) + slice_grad(r)` to `concat(p, q, r)`."""
    ends = [0, d.a, d.a + d.b, d.a + d.b + d.c]
    x = d.input("x", N, ends[-1])
    for name, start, stop in zip("qpr", ends, ends[1:], strict=False):
        part = d.apply(Slice(((1, start, stop, 1),)), x, name=name)
        d.input(f"d{name}", *part.shape)


def _of_power(exponent: float) -> dict[str, Any]:
    return _gradient(lambda b: b.value("dp") * (exponent * b.value("x") ** (exponent - 1)))


def _power(d: Drawing, exponent: float) -> None:
    d.apply(Power(exponent), d.input("x", N, "a"), name="p")
    d.input("dp", N, "a")


@rule(**_of_power(1.0))
def power_one_grad(d: Drawing) -> None:
    """Rewrite `d * 1 * x ** 0` to `d`."""
    _power(d, 1.0)


@rule(**_of_power(2.0))
def square_grad(d: Drawing) -> None:
    """Rewrite `d * 2 * x ** 1` to `d * (x * 2)`."""
    _power(d, 2.0)


def _batched(b: Builder) -> Value:
    made = b.apply(MatMul(True, False), b.value("x"), b.value("dp"))
    return unbroadcast(made, b.value("w"))


@rule(**_gradient(_batched, wrt="w", sizes="a b c e"))
def gradient_of_shared_matrix(d: Drawing) -> None:
    """Rewrite `sum over matrices of x.T @ d` to `rows(x).T @ rows(d)`."""
    made = d.apply(MatMul(), d.input("x", *"abc"), d.input("w", *"ce"), name="p")
    d.input("dp", *made.shape)
