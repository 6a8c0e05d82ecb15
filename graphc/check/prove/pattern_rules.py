"""Rules that rewrite a pattern: simplifications, fusions and normalisations."""

from __future__ import annotations

from functools import partial
from itertools import permutations, product
from typing import Any

from graphc.base.formula import Term, parsed
from graphc.check.prove.rule import EPS, F64, AnyOp, Drawing, Rule, rule
from graphc.ir.build import Value
from graphc.ir.op import BUILT_IN
from graphc.ir.tensor_type import Batch, Dim, N, TensorType
from graphc.ops.conv import Conv
from graphc.ops.dropout import Dropout
from graphc.ops.linalg import Affine, MatMul
from graphc.ops.norm import (
    BatchNorm,
    BatchNormDgamma,
    BatchNormDx,
    BatchNormTrain,
    Normalize,
    feature_axes,
)
from graphc.ops.reduce import Mean
from graphc.ops.select import Relu, ReluGrad
from graphc.ops.shape import Cast, Reshape, Transpose, pixels
from graphc.ops.slicing import Concat, Slice
from graphc.ops.source import draws, seed, state
from graphc.ops.sums import BroadcastTo, Sum
from passes.cse import cse
from passes.dead_code import dead_code
from passes.fold_batchnorm import fold_batchnorm
from passes.fold_constants import IDENTITIES as PATTERNS
from passes.fold_constants import fold_constants
from passes.fuse_affine_relu import fuse_affine_relu
from passes.share_batchnorm_statistics import share_batchnorm_statistics
from passes.specialize import Specialize


def _x(d: Drawing, rank: int = 2) -> Value:
    return d.input("x", *(N, "a", "b", "c")[:rank])


# ------------------------------------------------------------------ fold_constants


def _identity(name: str, pattern: str) -> Rule:
    """Return the rule that a pattern is x, with constants of any shape for its numbers."""
    term = parsed(pattern)
    shapes = [(), ("b",), ("c",), ("a", "b"), ("c", "b"), ("c", "c")]
    forms = shapes if isinstance(term, tuple) and BUILT_IN[term[0]].broadcasts else [()]
    rule = partial(Rule, given="if the result has x's type", sizes="a b c", forms=forms)
    return rule(name, pattern, "x", partial(_drawn, term), fold_constants)


def _drawn(term: Term, d: Drawing, *dims: str) -> Value:
    """Draw a pattern with constants of these dimensions."""
    if isinstance(term, (str, float)):
        return _x(d, 3) if isinstance(term, str) else d.filled(term, *dims)
    kind: Any = BUILT_IN[term[0]]
    operands, attributes = term[1][: len(kind.roles)], term[1][len(kind.roles) :]
    return d.apply(kind(*attributes), *(_drawn(operand, d, *dims) for operand in operands))


IDENTITIES = [_identity(*item) for item in PATTERNS.items()]


def _transposed(d: Drawing, *orders: tuple[int, ...]) -> Value:
    value = _x(d, len(orders[0]))
    for axes in orders:
        value = d.apply(Transpose(axes), value)
    return value


@rule(fold_constants, sizes="a b c", forms=[(1,), (2,), (3,), (4,)])
def transpose_nothing(d: Drawing, rank: int) -> Value:
    """Rewrite `transpose(x, (0, 1, ...))` to `x`."""
    return _transposed(d, tuple(range(rank)))


_ORDERS = [pair for rank in (2, 3) for pair in product(permutations(range(rank)), repeat=2)]
_TO_LAST = [(order, (0, 2, 3, 1)) for order in permutations(range(4))]


@rule(fold_constants, sizes="a b c", forms=[*_ORDERS, *_TO_LAST])
def transpose_transpose(d: Drawing, p: tuple[int, ...], q: tuple[int, ...]) -> Value:
    """Rewrite `transpose(transpose(x, p), q)` to `transpose(x, p[q])`."""
    return _transposed(d, p, q)


@rule(
    fold_constants,
    given="if it has x's type, step > 0",
    from_zero="start stop",
    forms=[(1,), (2,), (-1,)],
)
def slice_all(d: Drawing, step: int) -> Value:
    """Rewrite `x[start:stop:step]` to `x`."""
    ends = (d.start, d.stop) if step > 0 else (d.stop - 1, d.start - 1)
    return d.apply(Slice(((1, *ends, step),)), _x(d))


@rule(fold_constants, given="if s is x's shape", sizes="a b")
def reshape_nothing(d: Drawing) -> Value:
    """Rewrite `reshape(x, s)` to `x`."""
    return d.apply(Reshape((N, d.b, d.a)), _x(d, 3))


@rule(
    fold_constants,
    sizes="a b c",
    forms=[("rows", "split"), ("flat", "split"), ("split", "flat"), ("pixels", "rows")],
)
def reshape_reshape(d: Drawing, s: str, t: str) -> Value:
    """Rewrite `reshape(reshape(x, s), t)` to `reshape(x, t)`."""
    shapes: dict[str, tuple[Dim, ...]] = {
        "rows": (N, d.a * d.b * d.c),
        "split": (N, d.a * d.b, d.c),
        "flat": (N, d.a, d.b * d.c),
        "pixels": (Batch(d.a), d.b, d.c),
    }
    return d.apply(Reshape(shapes[t]), d.apply(Reshape(shapes[s]), _x(d, 4)))


@rule(fold_constants, given="if s is x's shape", sizes="a b")
def broadcast_nothing(d: Drawing) -> Value:
    """Rewrite `broadcast_to(x, s)` to `x`."""
    return d.apply(BroadcastTo((N, d.b)), _x(d))


@rule(fold_constants, given="if it is x's dtype")
def cast_nothing(d: Drawing) -> Value:
    """Rewrite `cast(x, dtype)` to `x`."""
    return d.apply(Cast(F64), _x(d))


@rule(fold_constants)
def concat_one(d: Drawing) -> Value:
    """Rewrite `concat([x])` to `x`."""
    return d.apply(Concat(1), _x(d))


@rule(fold_constants, given="for any op f", sizes="", forms=[(1, ()), (1, (2, 3)), (2, (2, 3))])
def fold(d: Drawing, number: int, shape: tuple[int, ...]) -> Value:
    """Rewrite `f(c1, c2, ...)` to `the constant f(c1, c2, ...)`."""
    operands = [d.any_constant(f"c{i}", *shape) for i in range(number)]
    return d.input("x", N, *shape) * d.apply(AnyOp("f"), *operands)


# ------------------------------------------------------------------ cse, dead_code


@rule(cse, given="for any op f", sizes="a b")
def common_subexpressions(d: Drawing) -> Value:
    """Rewrite `f(x, y), f(x, y)` to `f(x, y), once`."""
    x, y = _x(d), d.input("y", N, "b")
    one, other = (d.apply(AnyOp("f"), x, y) for _ in range(2))
    d.output(d.apply(AnyOp("h"), other, y), "z")
    return d.apply(AnyOp("g"), one, other)


@rule(cse, given="for any ops f and g")
def common_chains(d: Drawing) -> Value:
    """Rewrite `g(f(x)), g(f(x))` to `g(f(x)), once`."""
    x = _x(d)
    return d.apply(AnyOp("h"), *(d.apply(AnyOp("g"), d.apply(AnyOp("f"), x)) for _ in range(2)))


@rule(cse, given="for constants of equal bytes")
def common_constants(d: Drawing) -> Value:
    """Rewrite `c, c` to `c, once`."""
    return _x(d) * d.filled(0.5) + d.filled(0.5)


@rule(dead_code, given="for any op f")
def unread(d: Drawing) -> Value:
    """Rewrite `f(x), which nothing reads` to `nothing`."""
    x = _x(d)
    d.apply(AnyOp("g"), d.apply(AnyOp("f"), x))
    return d.apply(AnyOp("h"), x)


# ------------------------------------------------------------------ fuse_affine_relu


@rule(fuse_affine_relu, given="if nothing else reads the affine map", sizes="k m")
def affine_relu(d: Drawing) -> Value:
    """Rewrite `relu(affine(x, w, b))` to `affine_relu(x, w, b)`."""
    x, w, bias = d.input("x", N, "k"), d.input("w", "k", "m"), d.input("b", "m")
    return d.apply(Relu(), d.apply(Affine(), x, w, bias))


@rule(
    fuse_affine_relu,
    given="if nothing else reads the product",
    sizes="k m n",
    forms=list(product((False, True), repeat=2)),
)
def matmul_relu_grad(d: Drawing, left: bool, right: bool) -> Value:
    """Rewrite `relu_grad(h, matmul(a, b))` to `matmul_relu_grad(a, b, h)`."""
    a, b = d.input("p", *("kn" if left else "nk")), d.input("q", *("mk" if right else "km"))
    return d.apply(ReluGrad(), d.input("h", "n", "m"), d.apply(MatMul(left, right), a, b))


# ------------------------------------------------------------------ batch normalisation

_FROZEN = "with r = g/sqrt(v+eps); if all but x are constants that nothing else reads"
_KNOWN = "if m and v are x's mean and variance"


def _normalized(d: Drawing, x: Value, features: int) -> Value:
    names = ("mean", "var", "gamma", "beta")
    return d.apply(Normalize(EPS), x, *(d.any_constant(name, features) for name in names))


@rule(fold_batchnorm, given=_FROZEN, sizes="k m")
def affine_batchnorm(d: Drawing) -> Value:
    """Rewrite `normalize(affine(x, w, b), m, v, g, s)` to `affine(x, w*r, (b-m)*r + s)`."""
    w, bias = d.any_constant("w", "k", "m"), d.any_constant("b", "m")
    return _normalized(d, d.apply(Affine(), d.input("x", N, "k"), w, bias), d.m)


@rule(fold_batchnorm, given=_FROZEN, sizes="k m")
def matmul_batchnorm(d: Drawing) -> Value:
    """Rewrite `normalize(matmul(x, w), m, v, g, s)` to `affine(x, w*r, s - m*r)`."""
    made = d.apply(MatMul(), d.input("x", N, "k"), d.any_constant("w", "k", "m"))
    return _normalized(d, made, d.m)


@rule(
    fold_batchnorm,
    given=_FROZEN,
    sizes="h k g c o",
    forms=[(False, 1, False), (True, 1, False), (True, 2, False), (False, 1, True)],
)
def conv_batchnorm(d: Drawing, biased: bool, stride: int, grouped: bool) -> Value:
    """Rewrite `normalize(rows(conv(x, w)) [+ b], m, v, g, s)` to `rows(conv(x, w*r)) + b'`."""
    groups = d.g if grouped else 1
    x, w = d.input("x", N, "h", groups * d.c), d.any_constant("w", "k", "c", groups * d.o)
    rows = pixels(d.apply(Conv((stride,), (1,), groups), x, w))
    if biased:
        rows = rows + d.any_constant("b", groups * d.o)
    return _normalized(d, rows, groups * d.o)


def _with_statistics(d: Drawing, rank: int) -> Value:
    """Return x (N, a, ...), of which the mean and the variance are outputs."""
    x, axes = _x(d, rank), feature_axes(rank)
    average = d.apply(Mean(axes), x)
    spread = average if rank == 2 else d.apply(Reshape((1, d.a, *(1,) * (rank - 2))), average)
    d.output(average, "mean")
    d.output(d.apply(Mean(axes), (x - spread) ** 2), "var")
    return x


@rule(share_batchnorm_statistics, given=_KNOWN, sizes="a b c", forms=[(2,), (4,)])
def batchnorm_train(d: Drawing, rank: int) -> Value:
    """Rewrite `batchnorm_train(x, g, b)` to `normalize(x, m, v, g, b)`."""
    return d.apply(BatchNormTrain(EPS), _with_statistics(d, rank), *d.inputs("gs", "a"))


@rule(share_batchnorm_statistics, given=_KNOWN, sizes="a b c", forms=[(2,), (4,)])
def batchnorm_dgamma(d: Drawing, rank: int) -> Value:
    """Rewrite `batchnorm_dgamma(x, d)` to `normalize_dgamma(x, m, v, d)`."""
    x = _with_statistics(d, rank)
    return d.apply(BatchNormDgamma(EPS), x, d.input("d", *x.shape))


@rule(
    share_batchnorm_statistics,
    given=_KNOWN,
    sizes="a b c",
    forms=list(product((2, 4), (False, True))),
)
def batchnorm_dx(d: Drawing, rank: int, known: bool) -> Value:
    """Rewrite `batchnorm_dx(x, g, d)` to `normalize_dx(x, m, v, g, d, d_g, d_b)`."""
    x = _with_statistics(d, rank)
    upper = d.input("d", *x.shape)
    if known:
        d.output(d.apply(BatchNormDgamma(EPS), x, upper), "d_g")
        d.output(d.apply(Sum(feature_axes(rank)), upper), "d_b")
    return d.apply(BatchNormDx(EPS), x, d.input("g", "a"), upper)


def _of_images(d: Drawing) -> Value:
    vectors = d.inputs("gs", "a")
    for name, start in (("mean", 0.0), ("var", 1.0)):
        vectors.append(state(d.builder, name, TensorType((d.a,), F64), start))
    return d.apply(BatchNorm(EPS), _x(d, 4), *vectors)


@rule(Specialize(True), given="in training", sizes="a b c")
def batchnorm_of_pixels(d: Drawing) -> Value:
    """Rewrite `batchnorm of images` to `that of their rows of pixels`."""
    return _of_images(d)


@rule(Specialize(False), given="in inference", sizes="a b c", train=False)
def frozen_batchnorm_of_pixels(d: Drawing) -> Value:
    """Rewrite `batchnorm of images` to `that of their rows of pixels`."""
    return _of_images(d)


@rule(Specialize(False), given="in inference", train=False)
def dropout(d: Drawing) -> Value:
    """Rewrite `dropout(x)` to `x`."""
    return d.apply(Dropout(0.5, 7), _x(d), seed(d.builder), draws(d.builder))
