"""check_op compares the rule that makes an op a kernel, and the text of its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import graphc as gc
from graphc.check.check_op import check_op
from graphc.ir.access import AccessMap
from graphc.ir.expr import Axis, Expr, call, select
from graphc.ir.forms import GatherRule, Product, matrix_product, moved
from graphc.ir.op import Array, Iteration, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.slicing import Slice
from tests.together import together

X = np.array([[1.0, -2.0, 3.0], [0.5, 0.25, -1.0]])
Y = np.array([[0.3, 1.5, -0.7], [2.0, -0.1, 1.1]])
V = np.array([0.5, -1.5, 2.5])

Reference = Callable[..., Any]
Scalar = Callable[..., Any]


@dataclass(frozen=True)
class Elements(Op):
    """An op on elements by two functions, of arrays and of expressions."""

    name = "mine"
    roles: ClassVar[tuple[str, ...]] = ("x", "y")
    on: Reference
    of: Scalar
    result: str = ""

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0].with_dtype(self.result) if self.result else ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(self.on(*ins)).astype(self.result or ins[0].dtype)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return self.of(*ins)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class OfRows(Elements):
    """An op that reduces the columns of each row."""

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0].with_shape(ins[0].shape[:1])

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "columns"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> Any:
        return tuple("each" for _ in ins)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return self.of(*ins, axis)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Linear(Op):
    """A matrix product, with any fault in its rule."""

    name = "linear"
    roles = ("x", "w", "b")
    form: Callable[[Sequence[TensorType]], Product | None]
    after: Callable[[Expr, Sequence[Expr]], Expr] = lambda product, ins: product + ins[0]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0].with_shape((ins[0].shape[0], ins[1].shape[1]))

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0] @ ins[1] + ins[2])

    def product(self, ins: Sequence[TensorType]) -> Product | None:
        return self.form(ins)

    def epilogue(self, product: Expr, ins: Sequence[Expr]) -> Expr:
        return self.after(product, ins)


@dataclass(frozen=True)
class Reversed(Op):
    """The columns of x in the opposite order, read by an access map."""

    name = "reversed"
    roles = ("x",)
    shift: int = 2
    scale: int = -1

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0][:, ::-1].copy()

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        def mapped(maps: Any) -> Any:
            return [maps[0], maps[1]._replace(scale=self.scale, shift=self.shift)]

        return moved(ins[0].shape, result, mapped)


SQUARE = np.ones((3, 3)) * np.arange(1.0, 4.0)
F32 = "float32"


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def stable(x: Any) -> Any:
    e = call("exp", -call("abs", x))
    return select(x >= 0, 1, e) / (1 + e)


# fmt: off
WRONG: dict[str, tuple[Op, tuple[Array, ...], str]] = {
    "a constant": (Elements(lambda x: 2 * x, lambda x: 3 * x), (X,), "scalar"),
    "a sign": (Elements(lambda x: x - 1, lambda x: 1 - x), (X,), "scalar"),
    "operands swapped": (Elements(lambda x, y: x - y, lambda x, y: y - x), (X, Y), "scalar"),
    "the operand itself": (Elements(np.tanh, lambda x: x), (X * 1e-3,), "scalar"),
    "a term that is small": (Elements(lambda x: x + 1e-4, lambda x: x), (X,), "scalar"),
    "a small term in float32": (
        Elements(lambda x: x + np.float32(1e-3), lambda x: x), (X.astype(F32),), "scalar"),
    "below zero only": (Elements(np.abs, lambda x: x), (np.abs(X),), "scalar"),
    "NaN lost": (Elements(lambda x: x * 2.0, lambda x: select(x > -1e300, x * 2.0, -np.inf)),
        (X,), "scalar"),
    "overflow": (Elements(sigmoid, lambda x: call("exp", x) / (1 + call("exp", x))), (X,),
        "scalar"),
    "overflow in float32": (
        Elements(lambda x: np.logaddexp(x, 0), lambda x: call("log", 1 + call("exp", x))),
        (X.astype(F32),), "scalar"),
    "infinity": (Elements(lambda x: 1 / (1 + x * x), lambda x: 1 - x * x / (1 + x * x)),
        (X,), "scalar"),
    "the sign of zero": (Elements(np.negative, lambda x: 0 - x), (X,), "scalar"),
    "a quotient by zero": (
        Elements(lambda x, y: x / y, lambda x, y: select(y.equals(0), 0, x / y)), (X, Y), "scalar"),
    "a bool the other way": (
        Elements(np.greater, lambda x, y: x >= y, "bool"), (X, X), "scalar"),
    "floor for round": (Elements(np.rint, lambda x: call("floor", x)), (X * 1.3,), "scalar"),
    "a cast that cuts": (
        Elements(np.floor, lambda x: x.cast("int32"), "int32"), (X - 0.4,), "scalar"),
    "a sum for a mean": (
        OfRows(lambda x: x.mean(axis=1), lambda x, axis: x.sum(axis)), (X,), "scalar"),
    "the rows counted": (
        OfRows(lambda x: x.mean(axis=1),
               lambda x, axis: x.sum(axis) / x.builder.size("rows", x.dtype)), (X,), "scalar"),
    "softmax without the largest": (
        OfRows(lambda x: np.log(np.exp(x - x.max(1, keepdims=True)).sum(1)) + x.max(1),
               lambda x, axis: call("log", call("exp", x).sum(axis))), (X,), "scalar"),
    "a max of columns that begins at zero": (
        OfRows(lambda x: x.max(axis=1), lambda x, axis: call("maximum", x.max(axis), 0)),
        (-np.abs(X),), "scalar"),
    "one batch only": (
        OfRows(lambda x: x.sum(axis=1),
               lambda x, axis: x.sum(axis) * 2 / x.builder.size("rows", x.dtype)),
        (X,), "scalar"),
    "a factor transposed": (
        Linear(lambda ins: matrix_product(ins, False, True)), (X, SQUARE, V), "product"),
    "no bias": (
        Linear(matrix_product, lambda product, ins: product), (X, SQUARE, V), "product"),
    "a bias taken away": (
        Linear(matrix_product, lambda product, ins: product - ins[0]), (X, SQUARE, V), "product"),
    "an access map that is shifted": (Reversed(shift=1), (X,), "gather"),
    "an access map in order": (Reversed(shift=0, scale=1), (X,), "gather"),
}

RIGHT: dict[str, tuple[Op, tuple[Array, ...]]] = {
    "twice": (Elements(lambda x: 2 * x, lambda x: x + x), (X,)),
    "cube": (Elements(lambda x: x ** 3, lambda x: x * x * x), (X,)),
    "cube of float32": (Elements(lambda x: x ** 3, lambda x: x * x * x), (X.astype(F32),)),
    "negated": (Elements(np.negative, lambda x: -x), (X,)),
    "relu by a choice": (
        Elements(lambda x: np.maximum(x, 0), lambda x: select(x <= 0, 0, x)), (X,)),
    "relu by a maximum": (
        Elements(lambda x: np.maximum(x, 0), lambda x: call("maximum", x, 0)), (X,)),
    "leaky relu": (
        Elements(lambda x: np.where(x > 0, x, 0.1 * x), lambda x: select(x > 0, x, x * 0.1)),
        (X.astype(F32),)),
    "sigmoid": (Elements(sigmoid, stable), (X,)),
    "sigmoid of float32": (Elements(sigmoid, stable), (X.astype(F32),)),
    "softplus": (
        Elements(lambda x: np.logaddexp(x, 0),
                 lambda x: call("maximum", x, 0) + call("log", 1 + call("exp", -call("abs", x)))),
        (X,)),
    "tanh": (Elements(np.tanh, lambda x: call("tanh", x)), (X.astype(F32),)),
    "a hypotenuse that cannot overflow": (
        Elements(lambda x: np.sqrt(1 + x * x), lambda x: select(
            call("abs", x) > 1e15, call("abs", x), call("sqrt", 1 + x * x))), (X.astype(F32),)),
    "a quotient": (Elements(lambda x, y: x / y, lambda x, y: x / y), (X, Y)),
    "a bias for each column": (Elements(lambda x, y: x + y, lambda x, y: x + y), (X, V)),
    "a comparison": (Elements(np.greater, lambda x, y: x > y, "bool"), (X, X)),
    "whole numbers": (
        Elements(lambda x, y: x * y, lambda x, y: x * y), (np.arange(6).reshape(2, 3),) * 2),
    "floor": (Elements(np.floor, lambda x: call("floor", x)), (X * 2,)),
    "a cast": (Elements(np.trunc, lambda x: x.cast("int32"), "int32"), (X,)),
    "mean": (OfRows(lambda x: x.mean(axis=1), lambda x, axis: x.mean(axis)), (X,)),
    "norm": (
        OfRows(lambda x: np.sqrt((x * x).sum(axis=1)),
               lambda x, axis: call("sqrt", (x * x).sum(axis))), (X.astype(F32),)),
    "dot": (OfRows(lambda x, y: (x * y).sum(1), lambda x, y, axis: (x * y).sum(axis)), (X, Y)),
    "log of a sum of exp": (
        OfRows(lambda x: np.log(np.exp(x - x.max(1, keepdims=True)).sum(1)) + x.max(1),
               lambda x, axis: x.max(axis) + call("log", call("exp", x - x.max(axis)).sum(axis))),
        (X,)),
    "a product": (Linear(matrix_product), (X, SQUARE, V)),
    "a product of float32": (
        Linear(matrix_product), tuple(a.astype(F32) for a in (X, SQUARE, V))),
    "reversed": (Reversed(), (X,)),
    "graphc's own slice": (Slice(((1, 1, 3, 1),)), (X,)),
}
# fmt: on


@pytest.mark.one_in(9)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_named_with_both_numbers(name: str) -> None:
    op, operands, rule = WRONG[name]
    report = check_op(op, [operands])
    assert not report.ok, name
    ((found, fault),) = report.findings
    assert found.startswith(rule), report
    assert "it gives " in fault, report
    assert "reference gives " in fault, report


@pytest.mark.one_in(9)
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_rule_is_accepted(name: str) -> None:
    op, operands = RIGHT[name]
    report = check_op(op, [operands])
    assert report.ok, report
    assert set(report.rules) & {"scalar", "product", "product or epilogue", "gather"}, report


def test_a_product_that_does_not_fit_its_operands() -> None:
    op = Linear(lambda ins: Product(2))
    ((rule, fault),) = check_op(op, [(X, SQUARE, V)]).findings
    assert rule == "product"
    assert fault.startswith(
        "it does not fit: it is of N x 2 elements, the operand is float64[N, 3]"
    )


def test_the_text_says_where_and_for_which_operands() -> None:
    op, operands, _ = WRONG["operands swapped"]
    assert str(check_op(op, [operands])) == (
        "check_op mine: wrong\n"
        "  scalar: in the interpreter of kernels with 2 rows it gives -0.7 at [0, 0] for x = 1.0, "
        "y = 0.3; reference gives 0.7"
    )


# ------------------------------------------------------------------ the text of a gradient


@dataclass(frozen=True)
class Told(Op):
    """k * x ** 2 * y with a formula of its gradient."""

    name = "told"
    roles = ("x", "y")
    formulas: Any
    k: float = 3.0

    @property
    def gradient_text(self) -> tuple[str, ...]:
        return self.formulas  # type: ignore[no-any-return]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(self.k * ins[0] ** 2 * ins[1])

    def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
        x, y = ins
        return 2 * self.k * x * y * dout, self.k * x * x * dout


GOOD = "k * x ** 2 * d_out"
FORMULAS: dict[str, tuple[Any, str]] = {
    "no d_out": (("2 * k * x * y", GOOD), "says of x that '2 * k * x * y' gives "),
    "no factor": (("k * x * y * d_out", GOOD), "says of x that"),
    "a sign": (("-2 * k * x * y * d_out", GOOD), "says of x that"),
    "the other operand": (("2 * k * x * y * d_out",), "says of y that"),
    "another number": (("2 * 2.0 * x * y * d_out", GOOD), "says of x that"),
    "nothing flows": (("", GOOD), "says of x that nothing flows"),
    "too many": ((GOOD, GOOD, GOOD), "has 3 formulas for 2 operands"),
    "a string": ("d_out", "is 'd_out', not a tuple of formulas"),
    "not NumPy": (("2 k x y", GOOD), "has '2 k x y' for x, which fails: SyntaxError"),
    "an unknown word": (("2 * a * x * y * d_out", GOOD), "name 'a' is not defined"),
    "another shape": (("sum(2 * k * x * y * d_out)", GOOD), "says of x that"),
    "the result for the operand": (("2 * out * d_out", GOOD), "says of x that"),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_wrong_formula_of_a_gradient(name: str) -> None:
    formulas, fault = FORMULAS[name]
    ((rule, text),) = check_op(Told(formulas), [(X, Y)]).findings
    assert rule == "gradient_text"
    assert fault in text


@pytest.mark.parametrize(
    "formulas",
    [
        ("2 * k * x * y * d_out", GOOD),
        ("2 * out / x * d_out", "out / y * d_out"),
        ("exp(log(2 * k)) * x * y * d_out", "square(x) * k * d_out"),
        (),
    ],
)
def test_a_right_formula_of_a_gradient(formulas: tuple[str, ...]) -> None:
    report = check_op(Told(formulas), [(X, Y)])
    assert report.ok, report
    assert ("gradient_text" in report.rules) == bool(formulas)


# ------------------------------------------------------------------ malformed rules


class Plain(Op):
    """x, with a malformed rule; a subclass says which."""

    roles = ("x",)

    def infer(self, ins: Any) -> Any:
        return ins[0]

    def reference(self, ins: Any) -> Any:
        return ins[0] * 1

    def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
        return (dout * 1,)


class OnElements(Plain):
    def iteration(self, ins: Any) -> Any:
        return "elements"

    def scalar(self, ins: Any, axis: Any) -> Any:
        return ins[0] * 1


def with_rule(rule: str, found: Any, base: type[Plain] = Plain, name: str = "mine") -> Op:
    """An op whose rule returns that, or raises it."""

    def method(self: Any, *args: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found(*args) if callable(found) else found

    return type(name, (base,), {rule: method})()  # type: ignore[no-any-return]


# fmt: off
MALFORMED: dict[str, tuple[Op, str]] = {
    "infer: a tuple": (
        with_rule("infer", lambda ins: ins[0].shape), "infer: it returns tuple, not a TensorType"),
    "infer: None": (with_rule("infer", None), "infer: it returns NoneType, not a TensorType"),
    "infer: KeyError": (
        with_rule("infer", KeyError("k")), "infer: it fails on float64[2, 3]: KeyError: 'k', at"),
    "infer: missing": (with_rule("infer", NotImplementedError()), "infer: it is missing"),
    "reference: None": (
        with_rule("reference", None), "reference: it returns NoneType, not an array of float64"),
    "reference: objects": (
        with_rule("reference", lambda ins: [[None], [2]]),
        "reference: it returns an array of objects, not an array of float64"),
    "reference: text": (
        with_rule("reference", "x"), "infer: it says float64[2, 3] for float64[2, 3], reference"),
    "reference: a row": (
        with_rule("reference", lambda ins: ins[0][:1]), "infer: it says float64[2, 3] for float64"),
    "reference: AssertionError": (
        with_rule("reference", AssertionError("no")),
        "reference: it fails on float64[2, 3]: AssertionError: no, at test_check_op_kernels.py:"),
    "grad: None": (with_rule("grad", None), "grad: it returns NoneType, not a tuple of cotangents"),
    "grad: a value": (
        with_rule("grad", lambda b, ins, out, dout: dout), "grad: it returns Value, not a tuple"),
    "grad: text": (with_rule("grad", ("dout",)), "grad: it gives x 'dout', not a Value or None"),
    "grad: an array": (
        with_rule("grad", (np.ones((2, 3)),)),
        "grad: it gives x an object of type ndarray, not a Value or None"),
    "grad: a number": (with_rule("grad", (2.0,)), "grad: it gives x 2.0, not a Value or None"),
    "grad: two": (
        with_rule("grad", lambda b, ins, out, dout: (dout, dout)),
        "grad: it gives 2 cotangents for 1 operand"),
    "grad: a sum": (
        with_rule("grad", lambda b, ins, out, dout: (gc.sum(dout, axis=1),)),
        "grad: it gives x a cotangent of type float64[2]; x is float64[2, 3]"),
    "grad: IndexError": (
        with_rule("grad", lambda b, ins, out, dout: (ins[1],)), "grad: it fails: IndexError"),
    "scalar: None": (
        with_rule("scalar", None, OnElements), "scalar: it returns NoneType, not an expression"),
    "scalar: a number": (
        with_rule("scalar", 2.0, OnElements), "scalar: it returns float, not an expression"),
    "scalar: an array": (
        with_rule("scalar", np.ones(3), OnElements), "scalar: it returns ndarray, not an expr"),
    "scalar: KeyError": (
        with_rule("scalar", KeyError("k"), OnElements), "scalar: it fails: KeyError: 'k', at "),
    "scalar: AssertionError": (
        with_rule("scalar", AssertionError(), OnElements), "scalar: it fails: AssertionError"),
    "scalar: a bool": (
        with_rule("scalar", lambda ins, axis: ins[0] > 0, OnElements),
        "scalar: it returns bool, its infer rule says float64"),
    "scalar: an unknown function": (
        with_rule("scalar", lambda ins, axis: call("sine", ins[0]), OnElements),
        "scalar: it calls 'sine'; there are "),
    "scalar: without iteration": (
        with_rule("scalar", lambda ins, axis: ins[0]), "scalar: it is never used, since"),
    "scalar: a sum": (
        with_rule("scalar", lambda ins, axis: ins[0].sum(axis), OnElements),
        "scalar: it takes a sum, but its iteration rule says elements"),
    "iteration: without scalar": (with_rule("iteration", "elements"), "scalar: it is missing"),
    "iteration: another word": (
        with_rule("iteration", "element", OnElements),
        "iteration: it returns 'element', which is not one of elements, rows, columns, all, call"),
    "iteration: None": (with_rule("iteration", None, OnElements), "iteration: it returns None"),
    "iteration: a list": (with_rule("iteration", [1], OnElements), "iteration: it returns [1]"),
    "iteration: an array": (
        with_rule("iteration", np.ones((9, 9)), OnElements), "iteration: it returns an object of"),
    "iteration: without kinds": (
        with_rule("iteration", "columns", OnElements), "broadcast_kinds: it returns None, but the"),
    "broadcast_kinds: too few": (
        with_rule("broadcast_kinds", (), OnElements), "broadcast_kinds: it returns (), not a tupl"),
    "broadcast_kinds: another word": (
        with_rule("broadcast_kinds", ("all",), OnElements), "broadcast_kinds: it returns 'all',"),
    "broadcast_kinds: a list": (
        with_rule("broadcast_kinds", (["row"],), OnElements), "broadcast_kinds: it returns ['ro"),
    "broadcast_kinds: a kind that does not fit": (
        with_rule("broadcast_kinds", ("row",), OnElements),
        "broadcast_kinds: it does not fit: 'row' has "),
    "broadcast_kinds: TypeError": (
        with_rule("broadcast_kinds", TypeError("no"), OnElements),
        "broadcast_kinds: it fails: TypeError: no"),
    "gather: a map": (with_rule("gather", AccessMap(())), "gather: it returns AccessMap(axes"),
    "product: a bool": (with_rule("product", True), "product: it returns True, not a Product"),
    "product: KeyError": (with_rule("product", KeyError("a")), "product: it fails: KeyError: 'a'"),
}
# fmt: on


@together("name", MALFORMED)
def test_a_malformed_rule_is_reported_in_a_sentence(name: str) -> None:
    op, fault = MALFORMED[name]
    assert f"\n  {fault}" in str(check_op(op, [(X,)]))


USABLE = ("reference: AssertionError", "scalar: without iteration")
"""The rules of ops that are called, one with an exception of its own."""


@together("name", [name for name in MALFORMED if name not in USABLE])
def test_an_op_with_a_malformed_rule_is_refused_when_it_is_used(name: str) -> None:
    op, rule = MALFORMED[name][0], name.partition(":")[0]
    net = gc.Net("user")
    w = net.parameter("w", (3,))
    with pytest.raises(gc.RuleError) as caught:
        used = gc.apply(op, net.input("x", (gc.N, 3)) * w, name="used")
        net.loss("loss", gc.mean(used * used))
        plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy")
        gc.Executor(plan).step(x=X)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("mine 'used': its ")
    assert rule == "iteration" or caught.value.rule == rule
    line = "step(x=X)" if rule == "reference" else 'gc.apply(op, net.input("x", (gc.N, 3)) * w'
    assert line in str(caught.value)
