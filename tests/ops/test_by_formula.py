"""The formula that an op says is its gradient rule."""

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.ops.elementwise import Unary
from passes.specialize import Specialize


class Cube(Unary, gradient="d_out * (3 * x ** 2) + 0 * x ** 2"):
    """x ** 3."""

    def reference(self, ins: list[Array]) -> Array:  # type: ignore[override]
        return np.asarray(ins[0] ** 3)


class Silent(Cube, gradient=()):
    """x ** 3, of which no formula is said."""


class Unknown(Cube, gradient="d_out * slope(x)"):
    """x ** 3, with a word that is no op."""


def declared(op: Unary) -> gc.Net:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    net.output("slope", gc.grad(gc.sum(gc.apply(op, x)), x))
    return net


def test_an_op_with_a_formula_needs_no_rule_and_equal_parts_are_one_node() -> None:
    graph = Specialize(train=False)(declared(Cube()).graph())
    assert [node.op.name for node in graph].count("mul") == 4
    ex = gc.Executor(gc.compile(declared(Cube()), batch=2))
    rows = np.array([[1.0, 2.0], [3.0, -4.0]], np.float32)
    np.testing.assert_array_equal(ex.forward(x=rows)["slope"], 3 * rows**2)


def test_an_op_without_a_formula_has_no_gradient() -> None:
    with pytest.raises(gc.GraphError, match="it has no gradient rule"):
        gc.compile(declared(Silent()), batch=2)


def test_a_word_that_is_no_op_is_a_mistake_of_the_rule() -> None:
    with pytest.raises(gc.GraphError, match=r"its grad rule .*slope"):
        gc.compile(declared(Unknown()), batch=2)
