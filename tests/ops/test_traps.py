"""What other implementations of these layers get wrong, one test each."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Layer, Op
from graphc.ir.tensor_type import N, TensorType
from graphc.ops.autodiff import grad, vjp
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.index import Pick
from graphc.ops.linalg import AffineLayer, affine
from graphc.ops.losses.classes import SoftmaxLoss, SvmLoss
from graphc.ops.losses.elements import mse_loss
from graphc.ops.losses.labels import SoftmaxRows, SoftmaxRowsGrad, SvmRowsGrad
from graphc.ops.norm import BatchNorm, batchnorm
from graphc.ops.reduce import Max
from graphc.ops.select import Maximum, Minimum, Relu, ReluGrad, relu
from graphc.ops.source import Input
from graphc.ops.sums import sum_
from graphc.runtime import reference
from graphc.runtime.reference import evaluate, initial_state, next_state
from passes.specialize import Specialize
from tests.ops.examples import DOUBLE
from tests.ops.harness import Bound

NAN, INF = np.nan, np.inf


def kernel(op: Op, *ins: Array) -> Array:
    """What the numpy backend makes of concrete operands."""
    types = [TensorType(array.shape, array.dtype.name) for array in ins]
    return Bound(op, types, 1).run(ins)


def both(op: Op, *ins: Array) -> Array:
    """The kernel's result, once it equals the reference's."""
    found = kernel(op, *ins)
    np.testing.assert_allclose(found, op.reference(ins), rtol=1e-6)
    return found


def specialized(b: Builder, train: bool) -> Graph:
    return Specialize(train)(b.graph())


def feed(b: Builder, name: str, *shape: int, dtype: str = "float64") -> Value:
    return b.apply(Input(shape, dtype), name=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_keeps_nan_and_infinities(dtype: str) -> None:
    x = np.array([NAN, -NAN, INF, -INF, -0.0, -1.0, 2.0], dtype)
    assert np.array_equal(both(Relu(), x), [NAN, NAN, INF, 0, 0, 0, 2], equal_nan=True)


def test_relu_of_rank_above_two_leaves_its_operands_alone() -> None:
    x = np.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    dout = np.arange(24.0).reshape(x.shape)
    before = x.copy(), dout.copy()
    (dx,) = reference.backward(Relu(), [x], dout, ("x",))
    assert np.array_equal(dx, np.where(x > 0, dout, 0))
    assert np.array_equal(x, before[0])
    assert np.array_equal(dout, before[1])


def test_the_gradient_of_relu_is_zero_at_zero_and_below() -> None:
    x, dout = np.array([-1.0, 0.0, 1e-300, 1.0]), np.full(4, 3.0)
    (dx,) = reference.backward(Relu(), [x], dout, ("x",))
    assert np.array_equal(dx, [0, 0, 3, 3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_relu_blocks_is_zero_even_where_the_cotangent_is_not_finite(dtype: str) -> None:
    out = np.array([0, 0, 0, 1, 2, -0.0, NAN], dtype)
    dout = np.array([NAN, INF, -INF, -INF, -3, 5, 7], dtype)
    assert np.array_equal(both(ReluGrad(), out, dout), [0, 0, 0, -INF, -3, 0, 0])


def test_affine_gives_dx_the_shape_of_x() -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((5, 2, 3)), rng.standard_normal((6, 4)), np.zeros(4)
    dx, dw, db = reference.backward(
        AffineLayer(), [x, w, b], np.ones((5, 4)), ("x", "weight", "bias")
    )
    assert (dx.shape, dw.shape, db.shape) == (x.shape, w.shape, b.shape)
    assert np.array_equal(db, np.full(4, 5.0))


def test_affine_on_the_last_axis_equals_a_loop_over_rows() -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((5, 2, 3)), rng.standard_normal((3, 4)), rng.standard_normal(4)
    found = AffineLayer(True).reference_in([x, w, b], True)
    assert found.shape == (5, 2, 4)
    np.testing.assert_allclose(found[3, 1], x[3, 1] @ w + b)


def test_svm_loss_is_not_divided_by_the_number_of_classes() -> None:
    scores = np.zeros((4, 10))
    assert SvmLoss().reference_in([scores, np.arange(4)], True) == 9.0


def test_svm_margins_of_exactly_zero_are_not_violated() -> None:
    scores, labels = np.array([[0.0, 1.0, 3.0]]), np.array([1])
    slope = both(SvmRowsGrad(), scores, labels, np.array([2.0]))
    assert np.array_equal(slope, [[0.0, -2.0, 2.0]])


def loss_and_gradient(scores: Array, labels: Array) -> tuple[Array, Array]:
    """By the kernels, as a plan runs them."""
    share = np.full(len(labels), 1 / len(labels), scores.dtype)
    rows = both(SoftmaxRows(), scores, labels)
    return rows, both(SoftmaxRowsGrad(), scores, labels, share)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [3, 100])
def test_softmax_loss_is_exact_for_scores_of_ten_thousand(dtype: str, classes: int) -> None:
    scores = np.zeros((4, classes), dtype)
    scores[0, 0], scores[1, 0], scores[2, 0] = 1e4, -1e4, 1e4
    rows, slope = loss_and_gradient(scores, np.array([0, 0, 1, 2]))
    wanted = [0, 1e4 + np.log(classes - 1), 1e4, np.log(classes)]
    np.testing.assert_allclose(rows, wanted, rtol=1e-6)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(slope.sum(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(slope[2, :2], [0.25, -0.25], rtol=1e-6)


def test_softmax_loss_does_not_change_when_scores_move_together() -> None:
    scores = np.random.default_rng(0).standard_normal((5, 4))
    labels = np.arange(5) % 4
    moved = SoftmaxLoss().reference_in([scores + 1e6, labels], True)
    np.testing.assert_allclose(moved, SoftmaxLoss().reference_in([scores, labels], True), rtol=1e-8)


def test_the_weighted_mean_divides_by_the_weights() -> None:
    scores, labels = np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]), np.array([0, 1, 0])
    rows = SoftmaxLoss("none").reference_in([scores, labels], True)
    weight = np.array([1.0, 3.0, 0.0])
    found = SoftmaxLoss("mean").reference_in([scores, labels, weight], True)
    assert found == pytest.approx((rows[0] + 3 * rows[1]) / 4)


def test_batchnorm_divides_by_the_uncorrected_deviation() -> None:
    x = np.array([[0.0], [2.0], [4.0], [6.0]])
    one, zero = np.ones(1), np.zeros(1)
    found = BatchNorm(eps=1e-12).reference_in([x, one, zero, zero, one], True)
    np.testing.assert_allclose(found[:, 0], (x[:, 0] - 3) / np.sqrt(5))


def running_net(decay: float) -> Builder:
    b = Builder("net")
    b.outputs["h"] = batchnorm(feed(b, "x", 4, 1), running_decay=decay, name="bn").name
    return b


def test_running_statistics_keep_running_decay_of_the_old_and_are_not_corrected() -> None:
    graph = specialized(running_net(0.9), train=True)
    state = initial_state(graph, 0) | {"bn.running_mean": np.array([10.0])}
    values = evaluate(graph, {"x": np.array([[0.0], [2.0], [4.0], [6.0]])}, state, 4)
    after = next_state(graph, values, state)
    np.testing.assert_allclose(after["bn.running_mean"], [0.9 * 10 + 0.1 * 3])
    np.testing.assert_allclose(after["bn.running_var"], [0.9 * 1 + 0.1 * 5])


def test_batchnorm_at_inference_reads_and_keeps_the_running_statistics() -> None:
    graph = specialized(running_net(0.9), train=False)
    assert not graph.updates
    state = initial_state(graph, 0) | {"bn.running_mean": np.array([2.0])}
    x = np.array([[0.0], [2.0], [4.0], [6.0]])
    found = evaluate(graph, {"x": x}, state, 4)[graph.outputs["h"]]
    np.testing.assert_allclose(found, (x - 2) / np.sqrt(1 + 1e-5))


def test_batchnorm_of_images_has_statistics_for_each_channel() -> None:
    x = np.random.default_rng(0).standard_normal((5, 3, 2, 4)) * 3 + 1
    one, zero = np.ones(3), np.zeros(3)
    found = BatchNorm(eps=1e-12).reference_in([x, one, zero, zero, one], True)
    np.testing.assert_allclose(found.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(found.var(axis=(0, 2, 3)), 1)


def test_dropout_scales_what_it_keeps_and_is_the_identity_at_inference() -> None:
    x, key, counter = np.ones((400, 50)), np.array(3, np.uint64), np.array(0)
    layer = Dropout(0.8, 17)
    found = layer.reference_in([x, key, counter], True)
    assert set(np.unique(found)) == {0.0, 1.25}
    assert abs((found > 0).mean() - 0.8) < 0.02
    assert layer.reference_in([x, key, counter], False) is x


def test_a_row_of_a_dropout_mask_does_not_depend_on_the_batch() -> None:
    key, counter = np.array(3, np.uint64), np.array(5)
    large = kernel(DropoutMask((90, 70), "float32", 0.5, 17), key, counter)
    small = kernel(DropoutMask((7, 70), "float32", 0.5, 17), key, counter)
    other = kernel(DropoutMask((7, 70), "float32", 0.5, 18), key, counter)
    assert np.array_equal(large[:7], small)
    assert not np.array_equal(small, other)


def test_mse_loss_refuses_to_broadcast() -> None:
    b = Builder("net")
    x, y = b.apply(Input((N, 1), "float32"), name="x"), b.apply(Input((N,), "float32"), name="y")
    with pytest.raises(GraphError, match="they must be equal"):
        mse_loss(x, y)


def test_ties_of_max_share_the_gradient_and_ties_of_maximum_go_to_a() -> None:
    (dx,) = reference.backward(Max((0,)), [np.array([1.0, 3.0, 3.0])], np.array(1.0), ("x",))
    assert np.array_equal(dx, [0, 0.5, 0.5])
    for op in (Maximum(), Minimum()):
        one = np.array([1.0])
        da, db = reference.backward(op, [one, one], one, ("a", "b"))
        assert (float(da[0]), float(db[0])) == (1.0, 0.0)


def test_the_gradient_of_a_shared_weight_is_the_sum_over_its_readers() -> None:
    b = Builder("net")
    x, w = feed(b, "x", 2, 3), feed(b, "w", 3, 3)
    h = affine(affine(x, weight=w, bias=False), weight=w, bias=False)
    b.outputs["h"] = h.name
    graph = specialized(b, train=False)
    inner = Builder.extending(graph)
    dout = feed(inner, "dout", 2, 3)
    found = vjp(inner, {h.name: dout}, ["w"])["w"]
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal(s) for n, s in (("x", (2, 3)), ("w", (3, 3)), ("dout", (2, 3)))}
    values = evaluate(inner.graph(), feeds, initial_state(graph, 0), 2)
    first = feeds["x"] @ feeds["w"]
    wanted = first.T @ feeds["dout"] + feeds["x"].T @ (feeds["dout"] @ feeds["w"].T)
    np.testing.assert_allclose(values[found.name], wanted)


def test_grad_can_be_taken_again_and_refuses_what_nothing_depends_on() -> None:
    b = Builder("net")
    x, z = feed(b, "x", 3), feed(b, "z", 2)
    y = sum_(x * x * x)
    first = grad(y, x)
    assert isinstance(first, Value)
    second = grad(sum_(relu(first)), x)
    assert isinstance(second, Value)
    with pytest.raises(GraphError, match="does not depend on 'z'"):
        grad(sum_(relu(first)), [x, z])
    b.outputs.update(first=first.name, second=second.name)
    graph = specialized(b, train=True)
    feeds = {"x": np.array([1.0, -2.0, 3.0]), "z": np.ones(2)}
    values = evaluate(graph, feeds, initial_state(graph, 0), 1)
    assert np.array_equal(values[graph.outputs["first"]], [3.0, 12.0, 27.0])
    assert np.array_equal(values[graph.outputs["second"]], [6.0, -12.0, 18.0])


def test_layers_expand_to_what_they_mean() -> None:
    for example in DOUBLE:
        if isinstance(example.op, Layer):
            for train in (True, False):
                graph = reference.expanded(example.op, example.types, train)
                names = reference.operand_names(example.op, len(example.types))
                ins = example.operands(5)
                values = evaluate(graph, dict(zip(names, ins, strict=True)), {}, 5)
                wanted = cast(Layer, example.op.at(5)).reference_in(ins, train)
                np.testing.assert_allclose(values[graph.outputs["out"]], wanted, rtol=1e-12)


def test_pick_takes_0_for_indices_out_of_range() -> None:
    scores = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [np.inf, np.nan]], "float32")
    indices = np.array([1, -1, 2, 5])
    picked = Pick().reference([scores, indices])
    np.testing.assert_array_equal(picked, np.array([2, 0, 0, 0], "float32"), strict=True)

    net = gc.Net("computed")
    x, y = net.input("x", (gc.N, 2)), net.input("y", (gc.N, 7))
    net.output("picked", gc.pick(x, gc.argmax(y) - 1))  # nothing checks computed indices
    for backend in ("numpy", "native"):
        ex = gc.Executor(gc.compile(net, batch=4, backend=backend), seed=0)
        rows = np.eye(7, dtype="float32")[indices + 1]
        np.testing.assert_array_equal(ex.forward(x=scores, y=rows)["picked"], picked)
