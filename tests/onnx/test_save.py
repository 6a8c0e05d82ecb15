"""Exported nets: their results in other runtimes, and that reading them gives the same net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import graphc as gc
from graphc.ir.init import FromArray
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at
from graphc.onnx import load, save, to_proto
from graphc.ops.scatter import GatherElements
from graphc.ops.source import Parameter, State
from graphc.runtime.reference import initial_state
from tests.onnx import models
from tests.onnx.runtimes import by_both

Declare = Callable[[gc.Net], object]


def declared(net: gc.Net) -> dict[str, object]:
    """The nodes without what parameters and states start from; outputs and losses."""
    graph = net.graph()
    found: dict[str, object] = {}
    for node in graph:
        op: object = node.op
        if isinstance(op, (Parameter, State)):
            op = (type(op), op.shape, op.dtype)
        if isinstance(op, GatherElements):
            op = replace(op, axis=op.axis % node.type.rank)
        found[node.name] = (op, node.inputs, node.type)
    return {**found, "outputs": dict(graph.outputs), "losses": graph.losses}


def feeds_of(net: gc.Net, rows: int = 3) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for node in net.graph():
        if node.op.name == "input":
            shape = shape_at(node.type.shape, rows)
            if node.type.is_float:
                feeds[node.name] = rng.uniform(0.1, 0.9, shape).astype(node.type.dtype)
            else:
                feeds[node.name] = rng.integers(0, 3, shape).astype(node.type.dtype)
    return feeds


def digits(net: gc.Net) -> None:
    x, y = net.input("x", (gc.N, 6)), net.input("y", (gc.N,), dtype="int64")
    h = x
    for width in (8, 5):
        h = gc.affine(h, width)
        h = gc.dropout(gc.relu(gc.batchnorm(h)), keep_prob=0.8)
    scores = gc.affine(h, 3, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    net.loss("reg", 1e-2 * gc.sum(net["affine_1.weight"] ** 2))


def images(net: gc.Net) -> None:
    h = net.input("image", (gc.N, 3, 8, 8))
    h = gc.relu(gc.batchnorm(gc.conv2d(h, 4, 3, padding=1)))
    h = gc.max_pool(h, 2)
    h = gc.groupnorm(gc.conv2d(h, 4, 3, padding="same", bias=False), 2)
    h = gc.instancenorm(gc.conv_transpose2d(h, 2, 2, stride=2))
    h = gc.avg_pool(h, 2)
    net.output("mean", gc.global_avg_pool(h))
    net.output("scores", gc.affine(gc.flatten(h), 3))
    net.output("implied", gc.affine(h, 2, name="implied_flatten"))


def losses(net: gc.Net) -> None:
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,), dtype="int64")
    w = net.input("w", (gc.N,))
    net.loss("a", gc.softmax_loss(x, y, weight=w, label_smoothing=0.1))
    net.loss("b", gc.svm_loss(x, y))
    net.loss("c", gc.mse_loss(x, x * 2.0))
    net.loss("d", gc.huber_loss(x, x * 0.5))
    net.output("e", gc.softmax_loss(x, y, reduction="none"))
    net.output("f", gc.pick(x, y))
    net.output("g", gc.accuracy(x, y))


def elements(net: gc.Net) -> None:
    x, y = net.input("x", (gc.N, 4)), net.input("z", (gc.N, 4))
    for f in (gc.relu, gc.sigmoid, gc.tanh, gc.exp, gc.log, gc.sqrt, gc.abs, gc.sign, gc.erf):
        net.output(f.__name__, f(x))
    for f in (gc.softplus, gc.leaky_relu, gc.elu, gc.selu, gc.gelu, gc.silu, gc.mish, gc.softsign):
        net.output(f.__name__, f(x - 0.5))
    for f in (gc.hard_sigmoid, gc.hard_swish, gc.prelu, gc.layernorm, gc.rmsnorm, gc.softmax):
        net.output(f.__name__, f(x - 0.5))
    for g in (gc.add, gc.sub, gc.mul, gc.div, gc.maximum, gc.minimum, gc.less, gc.greater_equal):
        net.output(f"{g.__name__}_of_two", g(x, y))
    for f in (gc.floor, gc.ceil, gc.round, gc.sin, gc.cos, gc.atan, gc.celu, gc.shrink, gc.log1p):
        net.output(f.__name__, f(x * 2 - 0.7))
    for g in (gc.power, gc.mod, gc.fmod, gc.floor_div):
        net.output(f"{g.__name__}_of_both", g(x, y))
    a, b = gc.cast(x * 9, "int64"), gc.cast(1 + y * 3, "int64")
    for g in (gc.trunc_div, gc.floor_div, gc.mod, gc.logical_and, gc.logical_xor):
        net.output(f"{g.__name__}_of_ints", g(a, b))
    net.output("neither", gc.logical_not(gc.logical_or(x > 0.5, y > 0.5)))
    net.output("chosen", gc.where(x > y, x, -y))
    net.output("other", gc.cast(gc.not_equal(x, y), "float32"))
    net.output("power", x**3 + 1 / x)
    net.output("clip", gc.clip(x, None, 0.5))
    net.output("stopped", gc.stop_gradient(x))


def shapes(net: gc.Net) -> None:
    x = net.input("x", (gc.N, 4, 6))
    net.output("reshaped", gc.reshape(x, (gc.N, 2, 12)))
    net.output("more rows", gc.reshape(x, (4 * gc.N, 6)))
    net.output("moved", gc.transpose(x, (0, 2, 1)))
    net.output("joined", gc.concat([x, x[:, 1:3]], axis=1))
    net.output("cut", x[:, ::2, 1:5])
    net.output("last", gc.affine(x, 3, axis=-1))
    net.output("padded", gc.pad(x, [0, (1, 2), 1], 0.5))
    net.output("sum", gc.sum(x, (1, 2)))
    net.output("mean", gc.mean(x, -1, keepdims=True))
    net.output("max", gc.max(x))
    net.output("best", gc.argmax(x))
    net.output("hot", gc.one_hot(gc.argmax(x), 6))
    net.output("log", gc.log_softmax(x, 1))
    net.output("product", gc.matmul(x, gc.transpose(x, (0, 2, 1))))
    net.output("spread", gc.broadcast_to(gc.max(x), (gc.N, 2)))


def doubles(net: gc.Net) -> None:
    net.dtype = "float64"
    x = net.input("x", (2 * gc.N, 3))
    rows = net.input("rows", (gc.N, 3))
    h = gc.dropout(gc.relu(gc.affine(x, 4, init=gc.Glorot())), keep_prob=1.0)
    net.output("small", gc.expm1(gc.log1p(gc.abs(h))))
    net.output("one", gc.expm1(gc.sum(rows)))


def indices(net: gc.Net) -> None:
    x, ids = net.input("x", (gc.N, 4)), net.input("ids", (gc.N, 2), dtype="int64")
    net.output("rows", gc.embedding(ids, 3, 2))
    net.output("columns", gc.gather(x, [2, 0, 2], 1))
    net.output("each", gc.gather_elements(x, ids, 1))
    net.output("written", gc.scatter_elements(x, ids, x[:, :2] * 2.0, 1, reduction="add"))
    fixed = net.input("fixed", (4, 5))
    places = net.constant(np.array([[1, 2], [3, 0]]))
    net.output("places", gc.gather_nd(fixed, places))
    best, where = gc.topk(x, 2)
    net.output("best", best)
    net.output("where", where)
    net.output("least", gc.argmin(x))
    net.output("running", gc.cumsum(x, reverse=True))
    net.output("triangle", gc.tril(fixed))
    net.output("product", gc.prod(x, 1))
    net.output("rolled", gc.roll(x, 1))


def pairs(net: gc.Net) -> None:
    x, y = net.input("x", (gc.N, 4)), net.input("y", (gc.N,), dtype="int64")
    alike = gc.matmul(gc.affine(x, 3), gc.transpose(gc.affine(x, 3)))
    net.output("alike", alike)
    net.output("own", gc.diagonal(alike))
    net.output("below", gc.tril(alike, -1))
    net.output("each", gc.reshape(gc.reshape(alike, (-1, 1)) * 2.0, (gc.N, gc.N)))
    net.output("apart", gc.sum(gc.unsqueeze(x, 1) - gc.unsqueeze(x, 0), -1))
    net.output("same", gc.equal(gc.reshape(y, (gc.N, 1)), gc.reshape(y, (1, gc.N))))
    net.output("known", gc.nll_loss(gc.log_softmax(alike), y, ignore=1))
    net.loss("loss", gc.softmax_loss(alike, y))


def flat_pairs(net: gc.Net) -> None:
    near, x = net.input("near", (gc.N * gc.N, 2)), net.input("x", (gc.N, 4))
    net.output("of", gc.matmul(gc.reshape(near[:, 0], (gc.N, gc.N)), x))


NETS: list[Declare] = [
    digits, images, losses, elements, shapes, doubles, indices, pairs, flat_pairs,
]  # fmt: skip


def made(declare: Declare) -> gc.Net:
    net = gc.Net(declare.__name__)
    declare(net)
    return net


@pytest.mark.parametrize("declare", NETS)
def test_the_same_net_comes_back(declare: Declare) -> None:
    net = made(declare)
    again = load(to_proto(net))
    assert declared(again) == declared(net)
    before, after = (initial_state(n.graph(), 0) for n in (net, again))
    for name in before.keys() - {"seed", "draws"}:
        np.testing.assert_array_equal(after[name], before[name])
    for node in again.graph():
        if isinstance(node.op, Parameter):
            assert isinstance(node.op.init, FromArray)


@pytest.mark.parametrize("declare", NETS)
def test_the_forward_part_of_a_step_is_read_as_the_net(declare: Declare) -> None:
    """The next running statistics are outputs of the model; the layer makes them by itself."""
    net = made(declare)
    again = load(to_proto(net, train=True))
    assert declared(again) == declared(net)
    assert to_proto(again, train=True) == to_proto(net, train=True)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("declare", NETS)
def test_others_compute_the_same(declare: Declare) -> None:
    net = made(declare)
    feeds = feeds_of(net)
    wanted = gc.Executor(gc.compile(net, batch=3, backend="numpy")).forward(feeds)
    data = to_proto(net).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for run in (session.run, ReferenceEvaluator(data).run):  # type: ignore[arg-type]
        found = dict(zip(wanted, run(list(wanted), feeds), strict=True))
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=2e-4, atol=2e-5, err_msg=name)
            assert found[name].shape == array.shape, name


def test_pairs_alone_do_not_say_how_many_rows_there_are() -> None:
    net = gc.Net("flat")
    net.output("pairs", gc.reshape(net.input("near", (gc.N * gc.N,)), (gc.N, gc.N)))
    with pytest.raises(gc.GraphError, match="no input has that many, or a multiple"):
        to_proto(net)


def test_the_same_bytes_for_the_same_net(tmp_path: Path) -> None:
    first, second = (save(made(digits), tmp_path / name) for name in ("a.onnx", "b.onnx"))
    assert first.read_bytes() == second.read_bytes()


def test_weights_are_those_of_the_executor(tmp_path: Path) -> None:
    net = made(digits)
    ex = gc.Executor(gc.compile(net, batch=3, optimizer=gc.SGD(lr=0.1), backend="numpy"), seed=3)
    feeds = feeds_of(net)
    ex.step(feeds)
    again = load(save(ex, tmp_path / "model.onnx"))
    found = gc.Executor(gc.compile(again, batch=3, backend="numpy")).forward(feeds)
    np.testing.assert_allclose(found["scores"], ex.forward(feeds)["scores"], rtol=1e-6)


def test_the_forward_part_of_a_training_step() -> None:
    net = gc.Net("train")
    x = net.input("x", (gc.N, 3))
    net.output("y", gc.batchnorm(x, name="y"))
    proto = to_proto(net, train=True)
    feeds = feeds_of(net, 8)
    y, mean, var = ReferenceEvaluator(proto).run(None, feeds)  # type: ignore[misc]
    x_ = feeds["x"]
    np.testing.assert_allclose(
        y, (x_ - x_.mean(0)) / np.sqrt(x_.var(0) + 1e-5), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(mean, 0.1 * x_.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, 0.9 + 0.1 * x_.var(0), rtol=1e-5)
    net.output("z", gc.dropout(net["y"], keep_prob=0.5))
    z, y, *_ = ReferenceEvaluator(to_proto(net, train=True)).run(["z", "y"], feeds)  # type: ignore[misc]
    dropped = np.isclose(z, 0)
    np.testing.assert_allclose(z[~dropped], 2 * y[~dropped], rtol=1e-5)
    assert 0 < dropped.mean() < 1


def test_random_numbers_are_means_or_what_each_runtime_draws() -> None:
    net = gc.Net("noise")
    x = net.input("x", (gc.N, 40))
    policy = gc.Gaussian(gc.affine(x, 30), -1.0, squash=True)
    net.output("sample", policy.sample())
    net.output("normal", gc.random_normal(x))
    net.output("uniform", gc.random_uniform(x, (gc.N, 2, 20)))
    feeds = feeds_of(net, 50)
    wanted = gc.Executor(gc.compile(net, batch=50, backend="numpy")).forward(feeds)
    for _, found in by_both(to_proto(net), feeds):
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6)
    for _, found in by_both(to_proto(net, train=True), feeds):
        assert abs(found["normal"].std() - 1) < 0.1 > abs(found["normal"].mean())
        assert abs(found["uniform"].mean() - 0.5) < 0.05
        assert found["uniform"].shape == (50, 2, 20)
    for train in (True, False):
        assert declared(load(to_proto(net, train=train))) == declared(net)
    counter = net.input("counter", (), dtype="int64")
    net.output("keyed", gc.random_normal(x, counter=counter))
    with pytest.raises(gc.GraphError, match="ONNX, which has no random numbers by a counter"):
        to_proto(net)


def test_windows_whose_pixels_lie_apart() -> None:
    """Opset 18 has no such average; what a later one says comes back as it was."""
    how = {"kernel_shape": [2, 3], "dilations": [2, 1], "strides": [1, 2], "pads": [1, 0, 0, 1]}
    pool = models.node("AveragePool", "x", "y", **how)
    net = load(models.model([pool], {"x": ("N", 2, 7, 8)}, ["y"], opset=19))
    proto = to_proto(net)
    assert declared(load(proto)) == declared(net)
    feeds = feeds_of(net)
    wanted = gc.Executor(gc.compile(net, batch=3, backend="numpy")).forward(feeds)
    for _, found in by_both(proto, feeds):
        np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5)


def test_a_net_in_int8_has_the_same_bits_elsewhere(tmp_path: Path) -> None:
    net = gc.Net("net")
    h = gc.relu(gc.affine(net.input("x", (gc.N, 20)), 12))
    net.output("scores", gc.affine(h, 5))
    x = np.random.default_rng(0).standard_normal((9, 20)).astype(np.float32)
    ex = gc.quantize(gc.Executor(gc.compile(net, batch=9, backend="numpy")), x)
    path = save(ex, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(["scores"], {"x": x})[0], ex.predict(x))
    again = gc.Executor(gc.compile(load(path), batch=9, backend="numpy"))
    assert np.array_equal(again.predict(x), ex.predict(x))
    kinds = {node.op.name for node in again.plan.declared}
    assert {"quantize", "matmul"} <= kinds


def test_the_batch_is_a_dimension_with_a_name() -> None:
    proto = to_proto(made(digits))
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[1].dim_value) == ("N", 6)
    assert [o.version for o in proto.opset_import if not o.domain] == [18]
    assert proto.producer_name == "graphc"
    onnx.checker.check_model(proto, full_check=True)


def test_names_that_the_model_needs_for_itself() -> None:
    net = gc.Net("names")
    h = gc.batchnorm(net.input("x", (gc.N, 3)), name="bn")
    net.output("bn.running_mean.next", h)
    to_proto(net)
    with pytest.raises(gc.GraphError) as told:
        to_proto(net, train=True)
    assert "the next value of 'bn.running_mean' is called 'bn.running_mean.next'" in str(told)
    net = gc.Net("helpers")
    net.output("flat.constant", gc.reshape(net.input("x", (gc.N, 4)), (gc.N, 2, 2), name="flat"))
    assert declared(load(to_proto(net))) == declared(net)


def test_what_onnx_cannot_express_is_reported(tmp_path: Path) -> None:
    net = gc.Net("gradient")
    x = net.input("x", (3,))
    net.output("dx", gc.grad(gc.sum(x * x), x))  # type: ignore[arg-type]
    with pytest.raises(gc.GraphError, match="grad 'grad_1' is not exported to ONNX"):
        save(net, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    with pytest.raises(gc.GraphError, match="save takes a net, a plan or an executor, not int"):
        save(3, tmp_path / "model.onnx")  # type: ignore[arg-type]


def with_labels() -> gc.Net:
    net = gc.Net("labels")
    x, y = net.input("x", (gc.N, 4)), net.input("y", (gc.N,), dtype="int64")
    weight = net.input("weight", (gc.N,))
    net.input("nothing", (gc.N, 2))
    scores = net.output("scores", gc.affine(x, 3))
    net.loss("loss", gc.softmax_loss(scores, y, weight=weight))
    return net


def test_a_model_asks_only_for_what_its_outputs_need() -> None:
    ex = gc.Executor(gc.compile(with_labels(), batch=4, backend="numpy"))
    plan = gc.compile(with_labels(), batch=4, backend="numpy", losses=[])
    alone = [to_proto(gc.freeze(ex, batch=4)), to_proto(plan), to_proto(ex, losses=False)]
    for proto in alone:
        assert [one.name for one in proto.graph.input] == ["x"]
        assert [one.name for one in proto.graph.output] == ["scores"]
    for proto in (to_proto(ex), to_proto(ex, train=True)):
        assert [one.name for one in proto.graph.input] == ["x", "y", "weight"]
    feeds = {"x": np.ones((2, 4), np.float32)}
    for _, found in by_both(alone[2], feeds):
        np.testing.assert_allclose(found["scores"], ex.predict(feeds["x"]), rtol=1e-5)


def test_a_net_of_losses_alone_is_nothing_to_predict_by() -> None:
    net = gc.Net("loss")
    net.loss("loss", gc.sum(net.input("x", (3,)) ** 2))
    with pytest.raises(gc.GraphError, match="net 'loss' has no output to export"):
        to_proto(net, losses=False)
