"""What PyTorch's exporter records besides the nodes: buffers, and that a model is for inference."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load
from graphc.onnx.pytorch import CLASSES, RULE, SIGNATURE, TARGET
from tests.onnx.models import model, node

VECTOR = np.array([1.0, 2.0, 3.0], np.float32)
KINDS = {
    "w": "PARAMETER target='w'",
    "places": "BUFFER target='places' persistent=True",
    "scale": "BUFFER target='scale' persistent=False",
    "lifted": "CONSTANT_TENSOR target='lifted'",
}


def recorded(nodes: list[NodeProto], weights: Mapping[str, Array], *lines: str) -> ModelProto:
    made = model(nodes, {"x": ("N", 3)}, ["y"], weights, producer_name="pytorch")
    if lines:
        text = "\n".join(
            ["# inputs", *(f"p_{i}: {line}" for i, line in enumerate(lines)), "x: USER"]
        )
        made.graph.metadata_props.add(key=SIGNATURE, value=text)
    return made


def noted(one: NodeProto, classes: str, target: str) -> NodeProto:
    one.metadata_props.add(key=CLASSES, value=classes)
    one.metadata_props.add(key=TARGET, value=target)
    return one


def trained(net: gc.Net) -> list[str]:
    """The warnings of compiling the net for training; compiling it for inference has none."""
    net.loss("loss", gc.mean(net["y"] ** 2))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        gc.compile(net, batch=2, backend="numpy")
        assert not found
        gc.compile(net, batch=2, optimizer=gc.SGD(lr=0.1), backend="numpy")
    assert all(one.filename == __file__ for one in found)
    return [str(one.message) for one in found]


def test_only_parameters_are_trained() -> None:
    names = ["w", "places", "scale", "lifted"]
    nodes = [node("Mul", "x w", "a"), node("Add", "a places", "b")]
    nodes += [node("Mul", "b scale", "c"), node("Add", "c lifted", "y")]
    net = load(recorded(nodes, dict.fromkeys(names, VECTOR), *KINDS.values()))
    kinds = {node.name: node.op.name for node in net.graph()}
    assert [kinds[name] for name in names] == ["parameter", "state", "constant", "constant"]
    assert not trained(net)
    ex = gc.Executor(gc.compile(net, batch=2, optimizer=gc.SGD(lr=0.1), backend="numpy"))
    ex.step(x=np.ones((2, 3)))
    assert (ex.parameters["w"] != VECTOR).all()
    np.testing.assert_array_equal(ex.state["places"], VECTOR)
    with pytest.raises(gc.StateError, match="no layer for 'scale'"):
        gc.load_torch_state(ex, dict.fromkeys(names[:2], VECTOR * 2) | {"scale": VECTOR})
    gc.load_torch_state(ex, dict.fromkeys(names[:2], VECTOR * 2))
    np.testing.assert_array_equal(ex.state["places"], VECTOR * 2)


def test_numbers_of_the_exporters_own_are_warned_of() -> None:
    net = load(recorded([node("Mul", "x val_8", "y")], {"val_8": VECTOR}, KINDS["w"]))
    (message,) = trained(net)
    assert "in the place of parameters ('val_8')" in message
    assert "torch.onnx.export(model.train(), ..., dynamo=True, optimize=False)" in message


def test_batch_norms_that_were_folded_are_warned_of() -> None:
    product = node("Mul", "x w", "y")
    product.metadata_props.add(key=RULE, value="FuseBatchNormIntoGemm")
    (message,) = trained(load(recorded([product], {"w": VECTOR}, KINDS["w"])))
    assert "made batch norms parts of other layers" in message


def test_dropout_that_was_left_out_is_warned_of() -> None:
    left = noted(node("Identity", "x", "h"), "['torch.nn.modules.dropout.Dropout', 'clone']", "")
    product = node("Mul", "h w", "y")
    (message,) = trained(load(recorded([left, product], {"w": VECTOR}, KINDS["w"])))
    assert "exported for inference, so that dropout, if it drops anything, is left out" in message
    other = noted(node("Identity", "x", "h"), "['torch.nn.modules.linear.Identity', 'clone']", "")
    assert not trained(load(recorded([other, product], {"w": VECTOR}, KINDS["w"])))


NORM = ("w", "beta", "mean", "var")


@pytest.mark.parametrize(
    ("training", "target", "dropout", "warns"),
    [
        (0, "", False, True),
        (1, "", False, False),
        (0, "", True, False),
        (0, "aten._native_batch_norm_legit_no_training.default", False, True),
        (0, "aten._native_batch_norm_legit_functional.default", False, False),
    ],
)
def test_a_batch_norm_shows_what_a_model_was_exported_for(
    training: int, target: str, dropout: bool, warns: bool
) -> None:
    norm = node("BatchNormalization", f"x {' '.join(NORM)}", "h", training_mode=training)
    if target:
        noted(norm, "['torch.nn.modules.batchnorm.BatchNorm1d']", target)
    nodes = [norm, node("Dropout" if dropout else "Relu", "h", "y")]
    net = load(recorded(nodes, dict.fromkeys(NORM, VECTOR)))
    assert bool(trained(net)) == warns


def test_what_graphc_wrote_is_not_warned_of() -> None:
    net = gc.Net("own")
    net.output("y", gc.batchnorm(net.input("x", (gc.N, 3)), name="y"))
    assert not trained(load(gc.onnx.to_proto(net)))
