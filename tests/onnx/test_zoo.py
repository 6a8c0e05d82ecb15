"""Every net of the zoo to ONNX and back: others compute the same, and the same graph comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

import graphc as gc
from graphc.ir.tensor_type import shape_at
from graphc.onnx import to_proto
from graphc.ops.dropout import Dropout, DropoutMask
from tests.onnx.compare import agree, comes_back
from tests.onnx.runtimes import by_both
from tests.onnx.zoo import BATCHES, NAMES, Feeds, batch, declared_net

ROWS = 6
SMALLER: dict[str, dict[str, int]] = {"gpt": {"layers": 1}, "resnet": {"blocks": 1}}
"""Sizes with which a script's net is quick; the other nets are, as they are."""


def trained(name: str, steps: int, backend: str, **sizes: int) -> gc.Executor:
    net = declared_net(name, **sizes)
    adam = gc.Adam(lr=1e-3)
    ex = gc.Executor(gc.compile(net, batch=ROWS, optimizer=adam, backend=backend), seed=0)
    losses = [ex.step(batch(name, ROWS, seed)) for seed in range(steps)]
    assert np.isfinite(losses).all()
    return ex


def with_masks(model: ModelProto, ex: gc.Executor, feeds: Feeds) -> tuple[ModelProto, Feeds]:
    """A training graph whose masks are fed: those that this executor draws next.

    ONNX says how much a dropout drops, not what; each runtime has random numbers of its own.
    """
    drawn: Feeds = {}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Dropout":
            nodes.append(node)
            continue
        (name,) = node.output
        layer = ex.plan.declared[name]
        assert isinstance(layer.op, Dropout)
        shape = shape_at(layer.type.shape, ROWS)
        mask = DropoutMask(shape, layer.type.dtype, layer.op.keep_prob, layer.op.stream)
        drawn[f"{name}.mask"] = mask.reference([ex.state["seed"], ex.state["draws"]])
        nodes.append(helper.make_node("Mul", [node.input[0], f"{name}.mask"], [name]))
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    copy.graph.input.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        for name, array in drawn.items()
    )
    return copy, {**feeds, **drawn}


def check_inference(ex: gc.Executor, feeds: Feeds) -> None:
    wanted = ex.forward(feeds)
    for who, found in by_both(to_proto(ex), feeds):
        assert found.keys() == wanted.keys()
        agree(found, wanted, who)


def check_training(ex: gc.Executor, feeds: Feeds) -> None:
    """The forward part of a training step, and the running statistics that it leaves."""
    model, fed = with_masks(to_proto(ex, train=True), ex, feeds)
    results = list(by_both(model, fed))
    wanted = ex.forward(feeds, train=True)
    moved = {f"{name}.next": ex.state[name] for name in ex.state if ".running_" in name}
    for who, found in results:
        assert found.keys() == wanted.keys() | moved.keys()
        agree(found, {**wanted, **moved}, who)


def check(ex: gc.Executor, feeds: Feeds, folder: Path) -> None:
    check_inference(ex, feeds)
    for train in (False, True):
        comes_back(ex, folder / "model.onnx", feeds, train)
    check_training(ex, feeds)


def test_these_are_all() -> None:
    assert sorted(BATCHES) == NAMES
    assert len(NAMES) == 8


@pytest.mark.one_in(14)
@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    ex = trained(name, 2, "numpy", **SMALLER.get(name, {}))
    check(ex, batch(name, ROWS, seed=99), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_as_declared(name: str, backend: str, tmp_path: Path) -> None:
    ex = trained(name, 30, backend)
    check(ex, batch(name, ROWS, seed=99), tmp_path)
