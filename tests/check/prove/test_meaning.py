"""The terms of ops, evaluated at numbers, are what the ops' reference rules compute."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import z3

from graphc.check.prove.meaning import Side
from graphc.check.prove.poly import Poly, Ranges, number, symbol
from graphc.check.prove.sizes import Size, Trace, poly_of, recording
from graphc.check.prove.terms import Unknown, World, whole
from graphc.ir.build import Builder
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import N
from graphc.ops.conv import Conv
from graphc.ops.elementwise import Add, Div, Mul, Neg, Power, Sub
from graphc.ops.functions import Exp, LogSoftmax, Softmax, Sqrt
from graphc.ops.fused import AffineRelu, MatMulReluGrad
from graphc.ops.fused_norm import NormalizeDgamma, NormalizeDx
from graphc.ops.index import OneHot
from graphc.ops.linalg import Affine, MatMul
from graphc.ops.norm import BatchNormDgamma, BatchNormDx, BatchNormTrain, Normalize
from graphc.ops.optim import SquareSum
from graphc.ops.pad import Pad
from graphc.ops.reduce import Max, Mean, MeanGrad
from graphc.ops.select import Maximum, Minimum, Relu, ReluGrad
from graphc.ops.shape import Cast, Reshape, Transpose
from graphc.ops.slicing import Concat, Slice, SliceGrad
from graphc.ops.source import Input
from graphc.ops.sums import BroadcastTo, Sum

IMAGE, EACH = (3, 4, 2), (4,)
CASES: tuple[tuple[Op, tuple[tuple[int, ...], ...]], ...] = (
    *((op, ((2, 3), (3,))) for op in (Add(), Sub(), Mul(), Div(), Maximum(), Minimum())),
    *((op, ((2, 3),)) for op in (Neg(), Exp(), Sqrt(), Relu(), *map(Power, (3.0, -1.0, 0.5)))),
    (ReluGrad(), ((2, 3), (2, 3))),
    (Cast("bool"), ((2, 3),)),
    (BroadcastTo((2, 4, 3)), ((4, 1),)),
    *((kind(axes, keep), (IMAGE,)) for kind in (Sum, Mean, Max) for axes, keep in
      (((0,), False), ((1, 2), True), ((0, 1, 2), False))),
    (MeanGrad(IMAGE, (1,)), ((3, 1, 2),)),
    *((MatMul(a, b), ((2, 3) if a else (3, 2), (4, 2) if b else (2, 4)))
      for a in (False, True) for b in (False, True)),
    (MatMul(), ((5, 3, 2), (5, 2, 4))),
    (Affine(), ((3, 2), (2, 4), (4,))),
    (AffineRelu(), ((3, 2), (2, 4), (4,))),
    (MatMulReluGrad(False, True), ((3, 2), (4, 2), (3, 4))),
    (BatchNormTrain(0.1), (IMAGE, EACH, EACH)),
    (BatchNormDgamma(0.1), (IMAGE, IMAGE)),
    (BatchNormDx(0.1), (IMAGE, EACH, IMAGE)),
    (Normalize(0.1), (IMAGE, EACH, EACH, EACH, EACH)),
    (NormalizeDgamma(0.1), (IMAGE, EACH, EACH, IMAGE)),
    (NormalizeDx(0.1), (IMAGE, EACH, EACH, EACH, IMAGE, EACH, EACH)),
    (Transpose((2, 0, 1)), (IMAGE,)),
    (Reshape((2, 12)), (IMAGE,)),
    (Reshape((6, 2, 2)), (IMAGE,)),
    (Slice(((0, 1, 3, 1), (1, 0, 4, 3))), (IMAGE,)),
    (Slice(((1, 3, -1, -2),)), (IMAGE,)),
    (SliceGrad((3, 4, 2), ((1, 0, 4, 3),)), ((3, 2, 2),)),
    (SliceGrad((3, 4, 2), ((1, 3, -1, -2),)), ((3, 2, 2),)),
    (Pad(((1, 0), (0, 2), (0, 0)), 0.5), (IMAGE,)),
    (Concat(-2), (IMAGE, (3, 1, 2), (3, 2, 2))),
    (Conv((2, 1), (1, 2)), ((2, 5, 6, 3), (2, 3, 3, 4))),
    (Conv((1,), (1,), 2), ((2, 5, 6), (2, 3, 4))),
)  # fmt: skip


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("op", "shapes"), CASES, ids=lambda case: getattr(case, "name", None))
def test_terms_are_what_references_compute(op: Op, shapes: tuple[tuple[int, ...], ...]) -> None:
    b = Builder("net", "float64")
    b.locs = ()
    rng = np.random.default_rng(0)
    arrays = {f"x{i}": rng.uniform(0.2, 2, shape) for i, shape in enumerate(shapes)}
    operands = [b.apply(Input(a.shape, "float64"), name=name) for name, a in arrays.items()]
    b.apply(op, *operands, name="y")
    world = World(Ranges())
    value = Side(world, b.graph()).value("y")
    expected = op.reference(list(arrays.values()))
    assert tuple(size.constant for size in value.shape) == expected.shape
    indices = [*np.ndindex(expected.shape)]
    for index in indices[:: 1 + len(indices) // 5]:
        term = value.at(tuple(map(number, index)))
        assert run(term, arrays, world, {}) == pytest.approx(expected[index], rel=1e-12), index


@pytest.mark.parametrize("op", [Softmax(), LogSoftmax(), SquareSum(), OneHot(3, "float64")])
def test_an_op_that_is_not_one_on_elements_has_no_meaning(op: Op) -> None:
    """Its scalar rule reduces, or reads indices, which here have no axes."""
    b = Builder("net", "float64")
    dtype = "int64" if isinstance(op, OneHot) else "float64"
    b.apply(op, b.apply(Input((2, 3), dtype)), name="y")
    with pytest.raises(Unknown, match="is not one on elements"):
        Side(World(Ranges()), b.graph()).value("y")


FUNCTIONS = {"inverse": lambda x: 1 / x, "sqrt": math.sqrt, "exp": math.exp}
KINDS = {
    z3.Z3_OP_ADD: lambda *x: sum(x),
    z3.Z3_OP_MUL: lambda *x: math.prod(x),
    z3.Z3_OP_SUB: lambda a, b: a - b,
    z3.Z3_OP_UMINUS: lambda x: -x,
    z3.Z3_OP_IDIV: lambda a, b: a // b,
    z3.Z3_OP_MOD: lambda a, b: a % b,
    z3.Z3_OP_TO_REAL: lambda x: x,
    z3.Z3_OP_POWER: lambda a, b: a**b,
    z3.Z3_OP_LE: lambda a, b: a <= b,
    z3.Z3_OP_LT: lambda a, b: a < b,
    z3.Z3_OP_GE: lambda a, b: a >= b,
    z3.Z3_OP_GT: lambda a, b: a > b,
    z3.Z3_OP_EQ: lambda a, b: a == b,
    z3.Z3_OP_DISTINCT: lambda a, b: a != b,
    z3.Z3_OP_AND: lambda *x: all(x),
    z3.Z3_OP_OR: lambda *x: any(x),
    z3.Z3_OP_NOT: lambda x: not x,
    z3.Z3_OP_TRUE: lambda: True,
    z3.Z3_OP_FALSE: lambda: False,
}


def run(term: Any, arrays: Mapping[str, Array], world: World, names: Mapping[str, int]) -> Any:
    """Return the number that a term is, with sums as loops."""
    if z3.is_int_value(term):
        return term.as_long()
    if z3.is_rational_value(term):
        return float(term.as_fraction())
    kind, name = term.decl().kind(), term.decl().name()
    if kind == z3.Z3_OP_ITE:
        condition, a, b = term.children()
        return run(a if run(condition, arrays, world, names) else b, arrays, world, names)
    args = [run(arg, arrays, world, names) for arg in term.children()]
    if kind != z3.Z3_OP_UNINTERPRETED:
        return KINDS[kind](*args)
    if name in world.folds:
        fold = world.folds[name]
        own = {str(one): arg for one, arg in zip(fold.indices, args, strict=True)}
        count = range(run(fold.bound, arrays, world, own))
        parts = [run(fold.body, arrays, world, {**own, str(fold.index): i}) for i in count]
        return sum(parts) if fold.kind == "sum" else max(parts)
    if name in names:
        return names[name]
    if name in FUNCTIONS:
        return FUNCTIONS[name](*args)
    return float(arrays[name.partition("[")[0]][tuple(args)])


# ------------------------------------------------------------------ sizes


def sizes(**values: int) -> dict[str, Any]:
    return {name: Size(value, symbol(name)) for name, value in values.items()}


def test_sizes_record_what_is_asked_of_them() -> None:
    trace = Trace(Ranges({"a": 1, "b": 1}))
    with recording(trace):
        a, b = sizes(a=3, b=5).values()
        answers = a == b, a + b > a, 2 * a < b, a * b == b * a, a // 1 == a
    assert answers == (False, True, False, True, True)
    assert [str(one) for one in trace.conditions.values()] == ["a - b != 0", "2*a - b >= 0"]


def test_polynomials_of_sizes_are_what_integers_compute() -> None:
    values = {"a": 3, "b": 5, "c": 2}
    a, b, c = sizes(**values).values()
    with recording(Trace(Ranges(dict.fromkeys(values, 1)))):
        for found in (a * b - c, -(a + 7), (a * b + c) // b, (7 * a + 3) % 5, 20 // a, 9 - b * b):
            assert found.poly.at(values) == int(found)


def test_a_dimension_of_pairs_of_rows_is_a_square() -> None:
    assert [str(poly_of(dim)) for dim in (N, 2 * N, 3 * N * N)] == ["N", "2*N", "3*N*N"]


@pytest.mark.parametrize("by", ["b", "a*b"])
def test_quotients_are_exact(by: str) -> None:
    """A place in C order is divided without a remainder that is left over."""
    a, b, i, j = map(symbol, "abij")
    ranges = Ranges({"a": 1, "b": 1}, {"i": a, "j": b})
    place, size = i * b + j, b if by == "b" else a * b
    found = place.divided(size, ranges)
    assert found == (i if by == "b" else number(0))
    other = (i * b + j + number(1)).divided(size, ranges)
    values = {"a": 3, "b": 4}
    for p in range(3):
        for q in range(4):
            at = {**values, "i": p, "j": q}
            assert other.at(at) == (p * 4 + q + 1) // size.at(at)
            known = [(z3.Int(name), z3.IntVal(n)) for name, n in at.items()]
            assert z3.simplify(z3.substitute(whole(other), *known)).as_long() == other.at(at)


def test_zero_has_no_terms() -> None:
    assert symbol("a") - symbol("a") == Poly(()) == number(0)
