"""check_op names the rule that is wrong, in words that say what to change."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError, RuleError
from graphc.check.check_op import check_op
from graphc.ir.build import Builder, Value
from graphc.ir.op import Array, Cotangents, Layer, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.dropout import Dropout
from graphc.ops.elementwise import mul
from graphc.ops.loops.op import Scan
from graphc.ops.norm import BatchNorm
from tests.ops.example import Example
from tests.ops.examples import EXAMPLES
from tests.ops.test_contract import BETWEEN_SHARDS, each

X = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])


@dataclass(frozen=True)
class Cube(Op):
    """x ** 3, right in every rule; the tests break one rule each."""

    roles = ("x",)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0] ** 3)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (mul(dout, mul(3.0, mul(ins[0], ins[0]))),)


def checked(op: Op, *examples: tuple[Any, ...]) -> str:
    report = check_op(op, examples or [(X,)])
    assert not report.ok
    return str(report)


def test_a_right_op_is_ok() -> None:
    report = check_op(Cube(), [(X,), (X.astype("float32"),), (np.array(2.0),), (np.zeros((0, 3)),)])
    assert report.ok
    assert str(report) == "check_op cube: ok, infer, reference and grad agree on 4 examples"


def test_an_op_needs_no_gradient_rule() -> None:
    @dataclass(frozen=True)
    class Steps(Op):
        infer = Cube.infer

        def reference(self, ins: Sequence[Array]) -> Array:
            return np.asarray(np.sign(ins[0]))

    assert str(check_op(Steps(), [(X,)])) == (
        "check_op steps: ok, infer and reference agree on 1 example; it has no gradient rule"
    )


def test_a_wrong_gradient_is_reported_with_both_numbers() -> None:
    @dataclass(frozen=True)
    class Wrong(Cube):
        def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
            return (mul(dout, mul(ins[0], ins[0])),)

    text = checked(Wrong(), (np.array(2.0),))
    assert text.startswith("check_op wrong: wrong\n  grad: the gradient of x of the scalar is ")
    by_rule, by_differences = (float(part.split()[0]) for part in text.split(" is ")[1].split(", "))
    assert by_differences == pytest.approx(3 * by_rule, rel=1e-6)


def test_a_gradient_that_does_not_flow() -> None:
    @dataclass(frozen=True)
    class Wrong(Cube):
        def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
            return (None,)

    assert "is nothing by the rule, " in checked(Wrong())


def test_the_form_of_a_gradient() -> None:
    @dataclass(frozen=True)
    class Short(Cube):
        def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
            return ()

    @dataclass(frozen=True)
    class Reduced(Cube):
        def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
            from graphc.ops.sums import sum_

            return (sum_(dout, 0),)

    assert checked(Short()).endswith("grad: it gives 0 cotangents for 1 operand")
    assert checked(Reduced()).endswith(
        "grad: it gives x a cotangent of type float64[3]; x is float64[2, 3]"
    )


def test_infer_against_reference() -> None:
    @dataclass(frozen=True)
    class Wrong(Cube):
        def reference(self, ins: Sequence[Array]) -> Array:
            return np.asarray(ins[0].sum(axis=0))

    assert checked(Wrong()) == (
        "check_op wrong: wrong\n"
        "  infer: it says float64[2, 3] for float64[2, 3], reference gives float64[3]"
    )


def test_a_reference_that_promotes() -> None:
    @dataclass(frozen=True)
    class Wrong(Cube):
        def reference(self, ins: Sequence[Array]) -> Array:
            return np.asarray(ins[0] * np.ones(3))

    assert "it says float32[2, 3] for float32[2, 3], reference gives float64[2, 3]" in checked(
        Wrong(), (X.astype("float32"),), (X,)
    )


def test_an_infer_that_does_not_know_the_open_batch() -> None:
    @dataclass(frozen=True)
    class Counts(Cube):
        def infer(self, ins: Sequence[TensorType]) -> TensorType:
            rows, columns = ins[0].shape
            return ins[0].with_shape((int(rows) * columns,))  # type: ignore[arg-type,operator]

        def reference(self, ins: Sequence[Array]) -> Array:
            return ins[0].reshape(-1)

    assert "infer: it fails when a dimension is the open batch: TypeError" in checked(Counts())


def test_an_infer_that_fixes_the_batch() -> None:
    @dataclass(frozen=True)
    class Two(Cube):
        def infer(self, ins: Sequence[TensorType]) -> TensorType:
            rows = ins[0].shape[0] if isinstance(ins[0].shape[0], int) else 7
            return ins[0].with_shape((rows, *ins[0].shape[1:]))

    assert checked(Two()).endswith(
        "infer: with an open batch it says (7, 3), which is (7, 3) for N = 2; "
        "reference gives (2, 3)"
    )


def test_a_reference_that_writes_to_its_operand() -> None:
    @dataclass(frozen=True)
    class Clips(Cube):
        def reference(self, ins: Sequence[Array]) -> Array:
            ins[0][ins[0] < 0] = 0
            return ins[0]

    assert checked(Clips()).endswith("reference: it writes to operand 0, x; make a new array")
    assert X.min() < 0, "the example itself stays as it was"


def test_a_reference_that_depends_on_memory_order() -> None:
    @dataclass(frozen=True)
    class Memory(Cube):
        def reference(self, ins: Sequence[Array]) -> Array:
            return ins[0].ravel(order="K").reshape(ins[0].shape).copy()

    assert "it gives a different result when operands are in Fortran order" in checked(Memory())


def test_attributes_that_cannot_be_compared() -> None:
    @dataclass(frozen=True)
    class Table(Cube):
        table: Any = None

    assert "attributes: two ops with equal attributes cannot be compared: unhashable" in checked(
        Table([1, 2])
    )

    class Plain(Cube.__base__):  # type: ignore[misc,name-defined]
        infer, reference = Cube.infer, Cube.reference

        def __init__(self, table: Any) -> None:
            self.table = table

    class Scaled(Cube.__base__):  # type: ignore[misc,name-defined]
        infer, reference = Cube.infer, Cube.reference
        scale: float = 2.0

    words = "attributes: scale is not an attribute, since the class is not a dataclass"
    assert words in checked(Scaled())
    with pytest.raises(FrozenInstanceError, match=r"put @dataclass.*before class Plain"):
        Plain(1)


def test_the_name_of_a_built_in_op() -> None:
    @dataclass(frozen=True)
    class Exp(Cube):
        pass

    assert checked(Exp()) == (
        "check_op exp: wrong\n  name: 'exp' is the name of a built-in op; rename it"
    )


def test_layers_are_checked_in_both_modes() -> None:
    rng = np.random.default_rng(0)
    x, vector = rng.standard_normal((5, 3)), rng.uniform(0.5, 2, 3)
    assert check_op(BatchNorm(), [(x, vector, vector, vector, vector)]).ok
    assert check_op(Dropout(0.5, 3), [(x, np.uint64(7), np.int64(2))]).ok

    @dataclass(frozen=True)
    class Wrong(Dropout):
        def expand(self, b: Any, name: str, ins: Any, train: bool) -> Value:
            return mul(ins[0], 1.0, name=name)

    assert checked(Wrong(0.5, 3), (x, np.uint64(7), np.int64(2))).endswith(
        "expand: its result differs from that of reference_in in training"
    )


@pytest.mark.parametrize(
    ("op", "examples", "message"),
    [
        (Cube(), [], "check_op cube: there are no examples"),
        (Cube(), X, "check_op cube: examples is of type ndarray, not a list"),
        (Cube(), [X], "check_op cube: an example is of type ndarray, not a tuple"),
        (Cube(), [(X.astype("float16"),)], "check_op cube: in an example, dtype 'float16' is not"),
        (Cube(), [([1, [2]],)], "check_op cube: in an example, setting an array element"),
        (Cube(), [(X * np.inf,)], "check_op cube: an example is not finite, so it has no deriv"),
        (Cube, [(X,)], "check_op: <class 'tests.check.test_check_op.Cube'> is not an op"),
        ("cube", [(X,)], "check_op: 'cube' is not an op"),
    ],
)
def test_what_is_no_op_or_no_example_is_said(op: Any, examples: Any, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        check_op(op, examples)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("number", [0, -1, float("nan"), "1e-5"])
@pytest.mark.parametrize("option", ["h", "tolerance"])
def test_a_step_and_a_tolerance_are_above_0(option: str, number: Any) -> None:
    with pytest.raises(GraphError, match=rf"check_op: {option} is .*, it must be above 0"):
        check_op(Cube(), [(X,)], **{option: number})
    net = gc.Net()
    net.loss("loss", gc.mean(net.input("x", (2,))))
    with pytest.raises(GraphError, match=rf"grad_check: {option} is .*, it must be above 0"):
        gc.grad_check(net, {"x": np.ones(2)}, **{option: number})


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ({"roles": 3}, "roles: it is 3, not a tuple of names"),
        ({"roles": "x"}, "roles: it is 'x', not a tuple of names"),
        ({"name": 3}, "name: it is 3, not a word"),
        ({"gradient_text": 3}, "gradient_text: it is 3, not a tuple of formulas"),
    ],
)
def test_words_of_another_type(words: dict[str, Any], fault: str) -> None:
    assert fault in checked(type("Worded", (Cube,), words)())


def test_a_reference_of_a_layer_that_is_missing() -> None:
    class Nothing(Layer):
        infer = Cube.infer

    assert checked(Nothing()) == (
        "check_op nothing: wrong\n  reference_in: it is missing in training"
    )


def test_an_infer_that_returns_nothing_for_an_open_batch() -> None:
    class Fixed(Cube):
        def infer(self, ins: Any) -> Any:
            return ins[0] if isinstance(ins[0].shape[0], int) else None

    fault = "infer: with an open batch it returns NoneType, not a TensorType"
    assert checked(Fixed()).endswith(fault)


def test_an_example_that_infer_refuses_is_reported_in_one_line() -> None:
    class Floats(Cube):
        def infer(self, ins: Any) -> Any:
            raise ValueError("it takes floats\ncast it")

    assert checked(Floats()).endswith("infer: it refuses float64[2, 3]: it takes floats; cast it")
    assert "infer: it fails on no operands: IndexError" in checked(Cube(), ())


def test_a_layer_that_does_not_expand_is_reported() -> None:
    class Lost(Layer):
        name = "lost"
        roles = ("x",)
        infer = Cube.infer

        def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
            return ins[0] * 2

    class Nothing(Lost):
        name = "nothing"

        def expand(self, b: Any, name: str, ins: Any, train: bool) -> Any:
            return None

    assert checked(Lost()).endswith("\n  expand: it is missing in training")
    fault = "expand: it returns NoneType, not a Value in training"
    assert checked(Nothing()).endswith(f"\n  {fault}")


def test_the_error_of_a_rule_is_pickled_with_its_rule() -> None:
    error = RuleError("cube", "grad", "returns None", "x_1", hint="return a tuple")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.rule, again.fault) == (str(error), "grad", "returns None")
    assert (again.sentence, again.loc, again.hint) == (error.sentence, error.loc, error.hint)


def test_a_rule_that_calls_an_edited_function_is_differentiated_again() -> None:
    """In a notebook the function is edited, and its cell runs again; the class is the same."""
    factor = [2.0]

    @dataclass(frozen=True)
    class Doubled(Op):
        name = "doubled"
        roles = ("x",)

        def infer(self, ins: Any) -> Any:
            return ins[0]

        def reference(self, ins: Any) -> Any:
            return 2 * ins[0]

        def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
            return (factor[0] * dout,)

    examples = [(np.linspace(-1, 1, 6),)]
    assert check_op(Doubled(), examples).ok
    factor[0] = 3.0
    assert not check_op(Doubled(), examples).ok


@pytest.mark.one_in(17)
@each([e for e in EXAMPLES if e.op.name not in BETWEEN_SHARDS and not isinstance(e.op, Scan)])
def test_every_op_of_graphc_is_right(examples: list[Example]) -> None:
    for example in examples[:2]:
        report = check_op(example.concrete(3), [example.operands(3)])
        assert report.ok, f"{example}: {report}"
