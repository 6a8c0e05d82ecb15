"""Rules of the passes that simplify and fuse, and of layers that become other ops."""

from __future__ import annotations

from itertools import permutations, product

from graphc.check.prove.rule import EPS, F64, AnyOp, Drawing, rule
from graphc.ir.build import Value
from graphc.ir.op import Op
from graphc.ir.tensor_type import Batch, Dim, N, TensorType
from graphc.ops.conv import Conv
from graphc.ops.dropout import Dropout
from graphc.ops.elementwise import Add, Div, Mul, Neg, Power, Sub
from graphc.ops.linalg import Affine, MatMul
from graphc.ops.norm import (
    BatchNorm,
    BatchNormDgamma,
    BatchNormDx,
    BatchNormTrain,
    Normalize,
    feature_axes,
)
from graphc.ops.reduce import BroadcastTo, Max, Mean, Sum
from graphc.ops.select import Relu, ReluGrad
from graphc.ops.shape import Cast, Reshape, Transpose, pixels
from graphc.ops.slicing import Concat, Slice
from graphc.ops.source import draws, seed, state
from passes.cse import cse
from passes.dead_code import dead_code
from passes.fold_batchnorm import fold_batchnorm
from passes.fold_constants import fold_constants
from passes.fuse_affine_relu import fuse_affine_relu
from passes.middle_axes import middle_axes
from passes.share_batchnorm_statistics import share_batchnorm_statistics
from passes.specialize import Specialize

# ------------------------------------------------------------------ fold_constants

_FOLD = "fold_constants"


def _identity(name: str, left: str, number: float, op: Op, flipped: bool = False) -> None:
    """Add the rule that an op with a constant of one number is its other operand."""

    def draw(d: Drawing, *shape: str) -> None:
        x = d.input("x", N, d.a, d.b)
        one = d.filled(number, *(d.sizes[dim] for dim in shape))
        d.output(d.apply(op, *((one, x) if flipped else (x, one))))

    forms = [(), ("b",), ("c",), ("a", "b"), ("c", "b"), ("c", "c")]
    sizes = {"a": 3, "b": 5, "c": 1}
    rule(_FOLD, left, "x", fold_constants, name=name, forms=forms, sizes=sizes,
         given="if the result has x's type")(draw)  # fmt: skip


_identity("mul_one", "x * 1", 1.0, Mul())
_identity("one_mul", "1 * x", 1.0, Mul(), flipped=True)
_identity("div_one", "x / 1", 1.0, Div())
_identity("sub_zero", "x - 0", 0.0, Sub())


@rule(_FOLD, "-(-x)", "x", fold_constants)
def neg_neg(d: Drawing) -> None:
    d.output(d.apply(Neg(), d.apply(Neg(), d.input("x", N, d.a))))


@rule(_FOLD, "x ** 1", "x", fold_constants)
def power_one(d: Drawing) -> None:
    d.output(d.apply(Power(1.0), d.input("x", N, d.a)))


def _ranked(d: Drawing, rank: int) -> Value:
    dims = (N, d.a, d.b, d.c)
    return d.input("x", *dims[:rank])


_RANKS = {"a": 3, "b": 5, "c": 2}


@rule(_FOLD, "transpose(x, (0, 1, ...))", "x", fold_constants, sizes=_RANKS,
      forms=[(1,), (2,), (3,), (4,)])  # fmt: skip
def transpose_nothing(d: Drawing, rank: int) -> None:
    d.output(d.apply(Transpose(tuple(range(rank))), _ranked(d, rank)))


_ORDERS = [pair for rank in (2, 3) for pair in product(permutations(range(rank)), repeat=2)] + [
    (p, (0, 2, 3, 1)) for p in permutations(range(4))
]


@rule(_FOLD, "transpose(transpose(x, p), q)", "transpose(x, p[q])", fold_constants, sizes=_RANKS,
      forms=_ORDERS)  # fmt: skip
def transpose_transpose(d: Drawing, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    d.output(d.apply(Transpose(second), d.apply(Transpose(first), _ranked(d, len(first)))))


@rule(_FOLD, "x[start:stop:step]", "x", fold_constants, given="if it has x's type, step > 0",
      sizes={"a": 3, "start": 0, "stop": 3}, from_zero=("start", "stop"),
      forms=[(1,), (2,), (-1,)])  # fmt: skip
def slice_all(d: Drawing, step: int) -> None:
    ends = (d.start, d.stop) if step > 0 else (d.stop - 1, d.start - 1)
    d.output(d.apply(Slice(((1, *ends, step),)), d.input("x", N, d.a)))


@rule(_FOLD, "reshape(x, s)", "x", fold_constants, given="if s is x's shape", sizes=_RANKS)
def reshape_nothing(d: Drawing) -> None:
    d.output(d.apply(Reshape((N, d.b, d.a)), d.input("x", N, d.a, d.b)))


@rule(
    _FOLD,
    "reshape(reshape(x, s), t)",
    "reshape(x, t)",
    fold_constants,
    sizes=_RANKS,
    forms=[("rows", "split"), ("flat", "split"), ("split", "flat"), ("pixels", "rows")],
)
def reshape_reshape(d: Drawing, first: str, second: str) -> None:
    ab, bc = d.a * d.b, d.b * d.c
    shapes: dict[str, tuple[Dim, ...]] = {
        "rows": (N, ab * d.c),
        "split": (N, ab, d.c),
        "flat": (N, d.a, bc),
        "pixels": (Batch(d.a), d.b, d.c),
    }
    x = d.input("x", N, d.a, d.b, d.c)
    d.output(d.apply(Reshape(shapes[second]), d.apply(Reshape(shapes[first]), x)))


@rule(_FOLD, "broadcast_to(x, s)", "x", fold_constants, given="if s is x's shape")
def broadcast_nothing(d: Drawing) -> None:
    d.output(d.apply(BroadcastTo((N, d.b)), d.input("x", N, d.a)))


@rule(_FOLD, "cast(x, dtype)", "x", fold_constants, given="if it is x's dtype")
def cast_nothing(d: Drawing) -> None:
    d.output(d.apply(Cast(F64), d.input("x", N, d.a)))


@rule(_FOLD, "concat([x])", "x", fold_constants)
def concat_one(d: Drawing) -> None:
    d.output(d.apply(Concat(1), d.input("x", N, d.a)))


@rule(_FOLD, "f(c1, c2, ...)", "the constant f(c1, c2, ...)", fold_constants, sizes={},
      given="for any op f", forms=[(1, ()), (1, (2, 3)), (2, (2, 3))])  # fmt: skip
def fold(d: Drawing, number: int, shape: tuple[int, ...]) -> None:
    operands = [d.any_constant(f"c{i}", *shape) for i in range(number)]
    d.output(d.apply(Mul(), d.input("x", N, *shape), d.apply(AnyOp("f"), *operands)))


# ------------------------------------------------------------------ cse, dead_code


@rule("cse", "f(x, y), f(x, y)", "f(x, y), once", cse, given="for any op f")
def common_subexpressions(d: Drawing) -> None:
    x, y = d.input("x", N, d.a), d.input("y", N, d.b)
    one, other = (d.apply(AnyOp("f"), x, y) for _ in range(2))
    d.output(d.apply(AnyOp("g"), one, other))
    d.output(d.apply(AnyOp("h"), other, y), "z")


@rule("cse", "g(f(x)), g(f(x))", "g(f(x)), once", cse, given="for any ops f and g")
def common_chains(d: Drawing) -> None:
    x = d.input("x", N, d.a)
    chains = [d.apply(AnyOp("g"), d.apply(AnyOp("f"), x)) for _ in range(2)]
    d.output(d.apply(AnyOp("h"), *chains))


@rule("cse", "c, c", "c, once", cse, given="for constants of equal bytes")
def common_constants(d: Drawing) -> None:
    x = d.input("x", N, d.a)
    d.output(d.apply(Add(), d.apply(Mul(), x, d.filled(0.5)), d.filled(0.5)))


@rule("dead_code", "f(x), which nothing reads", "nothing", dead_code, given="for any op f")
def unread(d: Drawing) -> None:
    x = d.input("x", N, d.a)
    d.apply(AnyOp("g"), d.apply(AnyOp("f"), x))
    d.output(d.apply(AnyOp("h"), x))


# ------------------------------------------------------------------ fuse_affine_relu

_SIZES = {"k": 3, "m": 5}


@rule("fuse_affine_relu", "relu(affine(x, w, b))", "affine_relu(x, w, b)", fuse_affine_relu,
      sizes=_SIZES, given="if nothing else reads the affine map")  # fmt: skip
def affine_relu(d: Drawing) -> None:
    x, w, bias = d.input("x", N, d.k), d.input("w", d.k, d.m), d.input("b", d.m)
    d.output(d.apply(Relu(), d.apply(Affine(), x, w, bias)))


@rule("fuse_affine_relu", "relu_grad(h, matmul(a, b))", "matmul_relu_grad(a, b, h)",
      fuse_affine_relu, sizes={"k": 3, "m": 5, "n": 2}, given="if nothing else reads the product",
      forms=list(product((False, True), repeat=2)))  # fmt: skip
def matmul_relu_grad(d: Drawing, left: bool, right: bool) -> None:
    a = d.input("p", *((d.k, d.n) if left else (d.n, d.k)))
    b = d.input("q", *((d.m, d.k) if right else (d.k, d.m)))
    made = d.apply(MatMul(left, right), a, b)
    d.output(d.apply(ReluGrad(), d.input("h", d.n, d.m), made))


# ------------------------------------------------------------------ middle_axes

_MIDDLE = {"sizes": _RANKS, "forms": [(1,), (1, 2), (0, 2), (1, 3)]}


@rule("middle_axes", "sum(x, axes)", "sums of matmul(ones, x)", middle_axes, **_MIDDLE)
def middle_sum(d: Drawing, *axes: int) -> None:
    d.output(d.apply(Sum(axes), d.input("x", N, d.a, d.b, d.c)))


@rule("middle_axes", "max(x, axes)", "maxima of max(transpose(x), last)", middle_axes, **_MIDDLE)
def middle_max(d: Drawing, *axes: int) -> None:
    d.output(d.apply(Max(axes), d.input("x", N, d.a, d.b, d.c)))


@rule("middle_axes", "f(x, k)", "f(x, broadcast_to(k))", middle_axes, sizes=_RANKS,
      given="for functions of two elements", forms=[(Add(),), (Mul(),), (Div(),)])  # fmt: skip
def middle_operand(d: Drawing, op: Op) -> None:
    d.output(d.apply(op, d.input("x", N, d.a, d.b), d.input("k", N, 1, d.b)))


# ------------------------------------------------------------------ fold_batchnorm

_FROZEN = "if w, b and the statistics are constants that nothing else reads"


def _normalized(d: Drawing, x: Value, features: int) -> Value:
    names = ("mean", "var", "gamma", "beta")
    return d.apply(Normalize(EPS), x, *(d.any_constant(name, features) for name in names))


@rule("fold_batchnorm", "normalize(affine(x, w, b), m, v, g, s)",
      "affine(x, w*g/sqrt(v+eps), (b-m)*g/sqrt(v+eps) + s)", fold_batchnorm, sizes=_SIZES,
      given=_FROZEN)  # fmt: skip
def affine_batchnorm(d: Drawing) -> None:
    w, bias = d.any_constant("w", d.k, d.m), d.any_constant("b", d.m)
    d.output(_normalized(d, d.apply(Affine(), d.input("x", N, d.k), w, bias), d.m))


@rule("fold_batchnorm", "normalize(matmul(x, w), m, v, g, s)",
      "affine(x, w*g/sqrt(v+eps), s - m*g/sqrt(v+eps))", fold_batchnorm, sizes=_SIZES,
      given=_FROZEN)  # fmt: skip
def matmul_batchnorm(d: Drawing) -> None:
    made = d.apply(MatMul(), d.input("x", N, d.k), d.any_constant("w", d.k, d.m))
    d.output(_normalized(d, made, d.m))


@rule("fold_batchnorm", "normalize(reshape(conv(x, w)) [+ b], m, v, g, s)",
      "reshape(conv(x, w*g/sqrt(v+eps))) + b'", fold_batchnorm, given=_FROZEN,
      sizes={"h": 4, "k": 2, "g": 2, "c": 3, "o": 5},
      forms=[(False, 1, False), (True, 1, False), (True, 2, False), (False, 1, True)])  # fmt: skip
def conv_batchnorm(d: Drawing, biased: bool, stride: int, grouped: bool) -> None:
    groups = d.g if grouped else 1
    x, w = d.input("x", N, d.h, groups * d.c), d.any_constant("w", d.k, d.c, groups * d.o)
    rows = pixels(d.apply(Conv((stride,), (1,), groups), x, w))
    if biased:
        rows = d.apply(Add(), rows, d.any_constant("b", groups * d.o))
    d.output(_normalized(d, rows, groups * d.o))


# ------------------------------------------------------------------ batchnorm

_SHARE = "share_batchnorm_statistics"


def _with_statistics(d: Drawing, rank: int) -> Value:
    """Return x (N, a, ...), of which the mean and the variance are outputs."""
    x = d.input("x", *(N, d.a, d.b, d.c)[:rank])
    axes = feature_axes(rank)
    average = d.apply(Mean(axes), x)
    spread = average if rank == 2 else d.apply(Reshape((1, d.a, *(1,) * (rank - 2))), average)
    square = d.apply(Power(2.0), d.apply(Sub(), x, spread))
    d.output(average, "mean")
    d.output(d.apply(Mean(axes), square), "var")
    return x


_IMAGES = {"sizes": _RANKS, "forms": [(2,), (4,)], "given": "if m and v are x's mean and variance"}


@rule(_SHARE, "batchnorm_train(x, g, b)", "normalize(x, m, v, g, b)",
      share_batchnorm_statistics, **_IMAGES)  # fmt: skip
def batchnorm_train(d: Drawing, rank: int) -> None:
    x = _with_statistics(d, rank)
    d.output(d.apply(BatchNormTrain(EPS), x, d.input("g", d.a), d.input("s", d.a)))


@rule(_SHARE, "batchnorm_dgamma(x, d)", "normalize_dgamma(x, m, v, d)",
      share_batchnorm_statistics, **_IMAGES)  # fmt: skip
def batchnorm_dgamma(d: Drawing, rank: int) -> None:
    x = _with_statistics(d, rank)
    d.output(d.apply(BatchNormDgamma(EPS), x, d.input("d", *x.shape)))


@rule(_SHARE, "batchnorm_dx(x, g, d)", "normalize_dx(x, m, v, g, d, d_g, d_b)",
      share_batchnorm_statistics, sizes=_RANKS, given=_IMAGES["given"],
      forms=list(product((2, 4), (False, True))))  # fmt: skip
def batchnorm_dx(d: Drawing, rank: int, known: bool) -> None:
    x = _with_statistics(d, rank)
    upper = d.input("d", *x.shape)
    if known:
        d.output(d.apply(BatchNormDgamma(EPS), x, upper), "d_g")
        d.output(d.apply(Sum(feature_axes(rank)), upper), "d_b")
    d.output(d.apply(BatchNormDx(EPS), x, d.input("g", d.a), upper))


def _batchnorm(train: bool, name: str) -> None:
    def draw(d: Drawing) -> None:
        x = d.input("x", N, d.a, d.b, d.c)
        vectors = [d.input(vector, d.a) for vector in ("g", "s")]
        for vector, start in (("mean", 0.0), ("var", 1.0)):
            vectors.append(state(d.builder, vector, TensorType((d.a,), F64), start))
        d.output(d.apply(BatchNorm(EPS), x, *vectors))

    what = "by its statistics" if train else "by running statistics"
    rule("specialize", f"batchnorm of images, {what}", "that of their rows of pixels",
         Specialize(train), sizes=_RANKS, name=name, train=train)(draw)  # fmt: skip


_batchnorm(True, "batchnorm_of_pixels")
_batchnorm(False, "frozen_batchnorm_of_pixels")


@rule("specialize", "dropout(x)", "x", Specialize(False), given="in inference", train=False)
def dropout(d: Drawing) -> None:
    x = d.input("x", N, d.a)
    d.output(d.apply(Dropout(0.5, 7), x, seed(d.builder), draws(d.builder)))
