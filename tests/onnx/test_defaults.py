"""Attributes that a file leaves out have the values that ONNX says, for its version of the ops."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load
from tests.onnx.models import model, node

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")


def run(one: str, x: Array, opset: int = 21, **attributes: object) -> Array:
    """What a model of one op computes of x."""
    operands = "x scale" if one == "QuantizeLinear" else "x"
    weights = {"scale": np.float32(0.5)} if one == "QuantizeLinear" else {}
    nodes = [node(one, operands, "y", **attributes)]
    net = load(model(nodes, {"x": x.shape}, ["y"], weights, opset))
    return gc.Executor(gc.compile(net, batch=1, backend="numpy")).forward(x=x)["y"]


@pytest.mark.parametrize(("opset", "axes"), [(11, (1, 2)), (12, (1, 2)), (13, (2,))])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_the_axes_of_softmax_are_those_of_its_version(op: str, opset: int, axes: tuple) -> None:
    shares = np.exp(X) / np.exp(X).sum(axes, keepdims=True)
    wanted = shares if op == "Softmax" else np.log(shares)
    np.testing.assert_allclose(run(op, X, opset), wanted, rtol=1e-5)


def test_the_padding_of_averages_does_not_count() -> None:
    found = run("AveragePool", X, kernel_shape=[3], pads=[1, 1])
    ends = np.pad(X, ((0, 0), (0, 0), (1, 1)), constant_values=np.nan)
    wanted = [np.nanmean(ends[..., i : i + 3], axis=2) for i in range(4)]
    np.testing.assert_allclose(found, np.stack(wanted, 2), rtol=1e-5)


@pytest.mark.parametrize(("kind", "low", "high"), [("INT8", -128, 127), ("UINT8", 0, 255)])
def test_a_type_of_quantized_numbers_needs_no_zero_point(kind: str, low: int, high: int) -> None:
    x = np.array([-3.2, 0.0, 1.3, 100.0, 200.0], "float32")
    found = run("QuantizeLinear", x, output_dtype=getattr(TensorProto, kind))
    np.testing.assert_array_equal(found, np.clip(np.rint(x / 0.5), low, high))
