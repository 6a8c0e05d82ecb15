"""Builder and Value: operators, names, blocks; and what is said at the line of a mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value
from graphc.ir.tensor_type import N
from graphc.ops.source import Input
from graphc.runtime.reference import evaluate
from tests.together import together

X = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -0.5]])
Y = np.array([2.0, 4.0, 5.0])


class Two:
    """A net with two inputs of float64, one of whole numbers and one of rank 3."""

    def __init__(self) -> None:
        self.net = gc.Net("net", dtype="float64")
        self.x = self.net.input("x", (N, 3))
        self.y = self.net.input("y", 3)
        self.labels = self.net.input("labels", (N,), dtype="int64")
        self.deep = self.net.input("deep", (N, 4, 6))

    def value(self, of: Value) -> np.ndarray:
        deep = np.arange(48.0).reshape(2, 4, 6)
        feeds = {"x": X, "y": Y, "labels": np.array([2, 0]), "deep": deep}
        return evaluate(self.net.graph(), feeds, {}, 2)[of.name]


@pytest.fixture
def two() -> Two:
    return Two()


OPERATORS: list[Callable[[Any, Any], Any]] = [
    lambda x, y: x + y,
    lambda x, y: x + 1,
    lambda x, y: 1 + x,
    lambda x, y: x - y,
    lambda x, y: 2.5 - x,
    lambda x, y: x * y * np.float32(2),
    lambda x, y: np.float64(2) * x,
    lambda x, y: x / y,
    lambda x, y: 1 / y,
    lambda x, y: -x,
    lambda x, y: abs(x),
    lambda x, y: x**2,
    lambda x, y: y**-0.5,
    lambda x, y: abs(y) ** x,
    lambda x, y: 2**x,
    lambda x, y: x % y,
    lambda x, y: 2 % y,
    lambda x, y: x // y,
    lambda x, y: 2 // y,
    lambda x, y: y ** np.float32(2),
    lambda x, y: x < y,
    lambda x, y: x <= 0,
    lambda x, y: x > 0,
    lambda x, y: x >= y,
    lambda x, y: x == 0,
    lambda x, y: x == np.float64(0),
    lambda x, y: np.float32(0) < x,
    lambda x, y: np.float64(0.5) >= y,
    lambda x, y: np.int64(2) / y,
    lambda x, y: np.array(2.0) - x,
    lambda x, y: np.float32(2) ** x,
    lambda x, y: np.float64(2) // y,
    lambda x, y: x != 0,
]


@together("operator", OPERATORS)
def test_operators_mean_what_numpy_means(two: Two, operator: Callable[[Any, Any], Any]) -> None:
    np.testing.assert_allclose(two.value(operator(two.x, two.y)), operator(X, Y))


def test_matmul_is_an_operator(two: Two) -> None:
    weight = two.net.constant(np.ones((3, 2)))
    np.testing.assert_allclose(two.value(two.x @ weight), X @ np.ones((3, 2)))


@pytest.mark.parametrize(
    "index",
    [
        np.s_[:, 1],
        np.s_[:, -1],
        np.s_[:, 1:3],
        np.s_[:, ::2],
        np.s_[..., 2:5],
        np.s_[..., -1, 1:],
        np.s_[:, np.int64(1), ::3],
        np.s_[:, :, -4:-1],
    ],
)
def test_slices_mean_what_numpy_means(two: Two, index: Any) -> None:
    np.testing.assert_array_equal(
        two.value(two.deep[index]), np.arange(48.0).reshape(2, 4, 6)[index]
    )


def test_numbers_and_axes_may_come_from_numpy(two: Two) -> None:
    assert gc.sum(two.deep, axis=np.int64(-1)).node.op == gc.sum(two.deep, axis=2).node.op
    assert gc.sum(two.deep, axis=[0, 2]).shape == (4,)
    assert repr(gc.softmax(two.x, axis=np.int64(1)).node.op) == "Softmax(axis=1)"
    assert gc.affine(two.x, np.int64(5)).shape == (N, 5)
    assert gc.cast(two.x, np.float32).dtype == gc.cast(two.x, np.dtype("float32")).dtype
    assert gc.reshape(two.deep, -1).shape == (N * 24,)
    assert gc.broadcast_to(gc.sum(two.y), 7).shape == (7,)


def test_python_numbers_take_the_dtype_of_the_other_operand(two: Two) -> None:
    assert (two.labels + 1.0).dtype == "int64"
    assert (two.x + 1).dtype == "float64"
    assert (gc.cast(two.x, "float32") * 0.1).dtype == "float32"


def test_values_are_hashed_by_identity_and_equal_themselves(two: Two) -> None:
    assert {two.x: 1}[two.x] == 1
    assert (two.x == two.x) is True
    assert (two.x != two.x) is False
    assert (two.x == None) is False  # noqa: E711


def test_nodes_are_named_by_their_op_and_counted(two: Two) -> None:
    first, second = gc.relu(two.x), gc.relu(two.x)
    assert (first.name, second.name, gc.exp(first).name) == ("relu_1", "relu_2", "exp_1")
    assert gc.relu(two.x, name="relu_3").name == "relu_3"
    assert gc.relu(two.x).name == "relu_4"


def test_parameters_are_named_by_their_layer(two: Two) -> None:
    gc.batchnorm(gc.affine(two.x, 5, name="a"), name="b")
    parts = ["a.weight", "a.bias", "a", "b.gamma", "b.beta", "b.running_mean", "b.running_var", "b"]
    assert [name for name in two.net.graph().nodes][4:] == parts


def test_blocks_put_their_name_before_what_is_declared_inside(two: Two) -> None:
    with two.net.block("tower"):
        with two.net.block("first"):
            h = gc.affine(two.x, 2)
        again = gc.affine(h, 2, name="out")
    outside = gc.affine(again, 2)
    assert (h.name, again.name) == ("tower/first/affine_1", "tower/out")
    assert "tower/out.weight" in two.net.graph()
    assert outside.name == "affine_1"


def test_a_block_ends_where_an_error_leaves_it(two: Two) -> None:
    with pytest.raises(GraphError), two.net.block("tower"):
        gc.relu(two.labels)
    assert gc.relu(two.x).name == "relu_1"


def test_a_node_knows_the_line_that_declared_it_and_its_caller() -> None:
    b = Builder("net")
    x = b.apply(Input((N, 3), "float32"), name="x")

    def helper() -> Value:
        return gc.relu(x)

    (loc,) = helper().node.locs
    assert (Path(loc.file).name, loc.function, loc.text) == (
        "test_build.py",
        "helper",
        "return gc.relu(x)",
    )
    assert loc.caller is not None
    assert loc.caller.function == "test_a_node_knows_the_line_that_declared_it_and_its_caller"


def mistake(two: Two, text: str) -> Callable[[], object]:
    names = {"gc": gc, "np": np, **vars(two), "other": gc.Net("other").input("z", (N, 3))}
    return lambda: eval(text, names)


MISTAKES = {
    "gc.relu(3)": "relu: int is not a value of the net",
    "gc.relu(np.ones(3))": "relu: ndarray is not a value of the net",
    "gc.affine(np.ones((3, 3)), 2)": "affine: ndarray is not a value of the net",
    "gc.batchnorm(3)": "batchnorm: int is not a value of the net",
    "gc.dropout(3, keep_prob=0.5)": "dropout: int is not a value of the net",
    "gc.sum(np.ones(3))": "sum: ndarray is not a value of the net",
    "gc.mse_loss(np.ones(3), y)": "mse_loss: ndarray is not a value of the net",
    "gc.grad(3, x)": "grad: int is not a value of the net",
    "gc.concat([x, 1])": "concat: int is not a value of the net",
    "gc.pick(x, 0)": "pick: int is not a value of the net",
    "np.ones(3) + x": "add: ndarray is not a value of the net",
    "np.ones((2, 2)) @ x": "matmul: ndarray is not a value of the net",
    "np.asarray(x)": "'x' holds no numbers: it is declared, not computed",
    "list(x)": "'x' cannot be iterated over: it is declared, not computed",
    "gc.concat(x)": "concat takes several values as one list",
    "x + other": "add: 'z' belongs to net 'other', not to 'net'",
    "1 if x else 2": "'x' has no truth value: it is declared, not computed",
    "1 < x < 2": "'greater_1' has no truth value: it is declared, not computed",
    "x + labels": "add: a is float64, b is int64",
    "x + deep": "add: shapes (N, 3) and (N, 4, 6) do not broadcast: N against 4",
    "labels + 0.5": "add: 0.5 does not fit 'labels', which is int64",
    "labels + 2**70": f"add: {2**70} does not fit 'labels', which is int64",
    "gc.cast(x, 'float32') * 1e300": "mul: 1e+300 does not fit 'cast_1', which is float32",
    "gc.where(x > 0, 1.0, 0.0)": "where: neither operand is a value of the net",
    "2**labels": "pow: a is int64, pow takes floats",
    "x & x": "and: a is float64, and takes bools or whole numbers",
    "~x": "not: x is float64, not takes bools or whole numbers",
    "x // np.zeros(3)": "floor_div: ndarray is not a value of the net",
    "x[0]": "slice: the batch dimension cannot be cut",
    "deep[:, 4]": "slice: index 4 selects nothing from a dimension of 4",
    "deep[:, 3:1]": "slice: index 3:1 selects nothing from a dimension of 4",
    "deep[:, 0:2:-1]": "slice: index 0:2:-1 selects nothing from a dimension of 4",
    "deep[:, True]": "slice: index True selects nothing from a dimension of 4",
    "deep[:, np.array([0, 1])]": "slice: index [0 1] selects nothing from a dimension of 4",
    "x[:, 0, 0]": "slice: 3 indices for rank 2",
    "gc.reshape(x, (-1, -1))": "reshape: (-1, -1) has more than one -1",
    "gc.reshape(x, (gc.N, 2))": "reshape: shape (N, 3) has 3*N elements, (N, 2) has 2*N",
    "gc.sum(x, axis=2)": "sum: axis 2 does not exist in a value of rank 2",
    "gc.sum(x, axis=1.0)": "sum: axis 1.0 does not exist in a value of rank 2",
    "gc.affine(x, 2, axis=9)": "affine: axis 9 is not the last",
    "gc.affine(x, 2.5)": "affine: units is 2.5, it must be a whole number from 1 up",
    "gc.batchnorm(labels)": "batchnorm: x is int64[N], batchnorm takes floats of shape (N, ...",
    "gc.dropout(labels, keep_prob=0.5)": (
        "dropout 'dropout_1': x is int64[N], dropout takes floats of shape (N, ...)"
    ),
    "gc.dropout(x, keep_prob='half')": "dropout: keep_prob='half' is out of range",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_told_in_the_words_of_the_op_and_at_its_line(two: Two, text: str) -> None:
    with pytest.raises(GraphError) as caught:
        mistake(two, text)()
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(MISTAKES[text].removesuffix("..."))
    assert any(line.startswith("  at <string>:1") for line in lines), lines
    assert len(lines) < 15


def test_a_failed_layer_leaves_nothing_behind(two: Two) -> None:
    wrong: Callable[[], Value]
    before = two.net.graph().nodes.keys()
    for wrong in (
        lambda: gc.affine(two.x, 4, bias=two.y, name="a"),
        lambda: gc.affine(two.x, 4, weight=two.net["x"], name="a"),
    ):
        with pytest.raises(GraphError):
            wrong()
        assert two.net.graph().nodes.keys() == before
    assert gc.affine(two.x, 4, name="a").name == "a"


def test_a_taken_name_is_told_with_the_line_that_took_it(two: Two) -> None:
    again: Callable[[], Value]
    gc.affine(two.x, 4, name="a")
    for again in (lambda: gc.affine(two.x, 4, name="a"), lambda: gc.relu(two.x, name="a")):
        with pytest.raises(GraphError, match="the name 'a' is taken already") as caught:
            again()
        assert "affine  a float64[N, 4]  declared at test_build.py:" in str(caught.value)


def test_a_refused_layer_uses_up_no_name() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4))
    refused: list[Callable[[], object]] = [
        lambda: gc.affine(x, -3),
        lambda: gc.affine(x, 5, init=np.zeros((3, 3))),
        lambda: gc.batchnorm(x, eps=-1),
        lambda: gc.lstm(x, 3),
        lambda: gc.reshape(x, (3, 3)),
        lambda: gc.prelu(gc.cast(x, "int64")),
    ]
    for call in refused:
        with pytest.raises(gc.GraphError):
            call()
    assert gc.affine(x, 5).name == "affine_1"
    assert [gc.affine(x, 5).name for _ in range(3)] == ["affine_2", "affine_3", "affine_4"]
    assert gc.batchnorm(x).name == "batchnorm_1"
    assert gc.reshape(x, (-1,)).name == "reshape_1"
    assert gc.lstm(net.input("s", (gc.N, 2, 4)), 3)[0].name == "lstm_1"
