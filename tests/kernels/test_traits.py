"""The traits and bodies that nodes, layers and programs have in common."""

from __future__ import annotations

from dataclasses import dataclass

import graphc as gc
from graphc.compiler import driver
from graphc.ir.expr import Body
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType
from graphc.kernels.traits import Forms
from graphc.ops.elementwise import Add
from graphc.ops.moments import AdamMean
from graphc.ops.optim import Momentum
from graphc.ops.pad import Pad

MATRIX = TensorType((4, 8), "float32")


def _traits(forms: Forms, op: Op, operands: int = 2, type: TensorType = MATRIX) -> object:
    node = Node("y", op, ("a", "b", "c")[:operands], type)
    return forms.traits(node, [type] * operands)


def test_equal_ops_of_one_type_have_the_same_traits() -> None:
    forms = Forms()
    assert _traits(forms, AdamMean(0.9)) is _traits(forms, AdamMean(0.9))
    assert _traits(forms, Add()) is _traits(forms, Add())


def test_other_attributes_kinds_and_types_have_traits_of_their_own() -> None:
    forms = Forms()
    one = _traits(forms, AdamMean(0.9))
    assert one is not _traits(forms, AdamMean(0.8))
    assert one is not _traits(forms, Momentum(0.9))
    assert one is not _traits(forms, AdamMean(0.9), type=TensorType((8, 4), "float32"))


def test_minus_zero_is_another_number() -> None:
    forms, pads = Forms(), ((0, 0), (1, 1))
    assert Pad(pads, 0.0) != Pad(pads, -0.0)
    assert _traits(forms, Pad(pads, 0.0), 1) is not _traits(forms, Pad(pads, -0.0), 1)


@dataclass(frozen=True)
class _Listed(Op):
    """An op with an attribute that has no hash."""

    sizes: list[int]


def test_an_op_without_a_hash_is_like_itself_alone() -> None:
    forms, op = Forms(), _Listed([1])
    assert _traits(forms, op) is _traits(forms, op)
    assert _traits(forms, op) is not _traits(forms, _Listed([1]))


def test_a_deep_net_has_as_many_bodies_as_a_shallow_one() -> None:
    assert len(_bodies(12)) == len(_bodies(3))


def _bodies(layers: int) -> dict[object, Body]:
    """Return the bodies of the programs of a chain of layers of two widths."""
    net = gc.Net("chain")
    h = net.input("x", (gc.N, 8))
    for _ in range(layers):
        h = gc.relu(gc.affine(gc.relu(gc.affine(h, 16)), 8))
    net.loss("loss", gc.softmax_loss(h, net.input("y", (gc.N,), dtype="int64")))
    plan = gc.compile(net, batch=4, optimizer=gc.Adam())
    forms = Forms()
    for name, program in plan.programs.items():
        driver.build_program(name, program.graph, 4, plan.backend, forms)
    return forms.bodies
