"""Plans that multiply in bfloat16 as models: what others compute of them, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

import graphc as gc
from graphc.features.precision.bfloat16 import nearest
from graphc.ir.op import Array
from graphc.onnx import load, save, to_proto
from tests.onnx.runtimes import by_both

Declare = Callable[[gc.Net], object]
Results = Mapping[str, Array]


def perceptron(net: gc.Net) -> None:
    h = gc.relu(gc.affine(net.input("x", (gc.N, 20)), 30, name="hidden"))
    net.output("y", gc.affine(h, 5, name="scores"))


def images(net: gc.Net) -> None:
    x = net.input("x", (gc.N, 3, 8, 8))
    h = gc.max_pool(gc.relu(gc.batchnorm(gc.conv2d(x, 8, 3, padding=1))), 2)
    net.output("y", gc.affine(gc.conv_transpose2d(h, 4, 2, stride=2), 5, bias=False))


def loops(net: gc.Net) -> None:
    states, (last, _) = gc.lstm(net.input("x", (gc.N, 6, 10)), 8, name="memory")
    net.output("y", states)
    net.output("z", gc.matmul(last, gc.transpose(net.parameter("w", (3, 8)))))


def attention(net: gc.Net) -> None:
    h = gc.multi_head_attention(net.input("x", (gc.N, 6, 16)), 2, causal=True)
    net.output("y", gc.affine(h, 4, axis=-1))


def executor(net: gc.Net, **how: object) -> gc.Executor:
    return gc.Executor(gc.compile(net, batch=8, backend="numpy", **how), seed=0)  # type: ignore[arg-type]


def declared(declare: Declare) -> tuple[gc.Net, dict[str, Array]]:
    net = gc.Net("net")
    declare(net)
    shape = tuple(dim for dim in net["x"].shape if isinstance(dim, int))
    return net, {"x": np.random.default_rng(0).standard_normal((8, *shape)).astype("float32")}


def casts(model: ModelProto) -> list[str]:
    """The results that are cast to BFLOAT16."""
    nodes = [node for node in model.graph.node if node.op_type == "Cast"]
    return [node.input[0] for node in nodes if node.attribute[0].i == TensorProto.BFLOAT16]


def near(found: Results, wanted: Results, plain: Results) -> bool:
    """Whether results are far nearer to those wanted than those of float32, `plain`, are."""
    return all(
        np.abs(found[name] - wanted[name]).max() < np.abs(plain[name] - wanted[name]).max() / 500
        for name in wanted
    )


@pytest.mark.parametrize("declare", [perceptron, images, loops, attention])
def test_others_multiply_the_same_rounded_factors(declare: Declare) -> None:
    net, feeds = declared(declare)
    ex = executor(net, precision={"*": "bf16"})
    wanted = ex.forward(feeds)
    for who, found in by_both(to_proto(ex), feeds):
        assert near(found, wanted, executor(net).forward(feeds)), who


@pytest.mark.parametrize("declare", [perceptron, images, loops, attention])
def test_it_comes_back_and_is_written_the_same(declare: Declare) -> None:
    net, feeds = declared(declare)
    precision = {"*": "bf16"}
    ex = executor(net, precision=precision)
    wanted = ex.forward(feeds)
    model = to_proto(ex)
    again = load(model)
    assert near(executor(again).forward(feeds), wanted, executor(net).forward(feeds))
    found = executor(again, precision=precision).forward(feeds)  # what is rounded stays
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
    assert to_proto(again) == model


def test_a_value_is_rounded_once_and_only_for_the_layers_that_are_chosen() -> None:
    net, _ = declared(perceptron)
    net.output("more", gc.affine(net["relu_1"], 4, name="more"))
    model = to_proto(gc.compile(net, batch=8, precision={"*": "bf16", "hidden": "float32"}))
    assert sorted(casts(model)) == ["more.weight", "relu_1", "scores.weight"]
    single = gc.compile(net, batch=8, precision={"*": "float32"})
    for plain in (net, gc.compile(net, batch=8), single):
        assert not casts(to_proto(plain))


def test_weights_of_a_loop_are_rounded_before_it_and_by_its_name() -> None:
    net, _ = declared(loops)
    model = to_proto(gc.compile(net, batch=8, precision={"memory": "bf16_blocks"}))
    assert {"memory.weight_ih", "memory.weight_hh"} <= set(casts(model))
    assert "w" not in casts(model)


def test_constant_weights_are_stored_rounded(tmp_path: Path) -> None:
    net, feeds = declared(images)
    ex = executor(net, precision={"*": "bf16"})
    frozen = gc.freeze(ex, batch=8)
    sizes = [save(one, tmp_path / "model.onnx").stat().st_size for one in (ex, frozen)]
    saved = 2 * sum(ex.parameters[name].size for name in ex.parameters if "weight" in name)
    assert sizes[0] - sizes[1] > saved / 2
    model = to_proto(frozen)
    for who, found in by_both(model, feeds):
        assert near(found, ex.forward(feeds), executor(net).forward(feeds)), who
    again = executor(load(model), precision={"*": "bf16"})
    np.testing.assert_array_equal(again.forward(feeds)["y"], ex.forward(feeds)["y"])


def test_gradients_flow_through_what_rounds_as_if_it_did_not() -> None:
    net, feeds = declared(perceptron)
    again = load(to_proto(gc.compile(net, batch=8, precision={"*": "bf16"})))
    again.loss("loss", gc.sum(again["scores"]))
    ex = executor(again)
    ex.forward(feeds, train=True)
    w, b = (ex.parameters[f"hidden.{part}"] for part in ("weight", "bias"))
    hidden = nearest(np.maximum(nearest(feeds["x"]) @ nearest(w) + b, 0))
    wanted = np.tile(hidden.sum(0)[:, None], 5)
    np.testing.assert_allclose(ex.backward()["scores.weight"], wanted, rtol=1e-5)


def test_validation_knows_how_far_a_rounding_may_move_a_number() -> None:
    net, _ = declared(images)
    again = load(to_proto(executor(net, precision={"*": "bf16"})))
    gc.compile(again, batch=4, backend="numpy", validate=True)
