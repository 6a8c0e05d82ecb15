"""ONNX's backend interface: one node, whole models, devices, and ONNX's own runner."""

from __future__ import annotations

import unittest

import numpy as np
import pytest
from onnx import helper

import graphc as gc
import graphc.onnx
from graphc.onnx import prepare, run_model, run_node, supports_device
from tests.onnx.models import model, node
from tests.onnx.test_load import numbers, perceptron


def test_a_node_by_itself() -> None:
    a, b = numbers(2, 3), numbers(3, 4, seed=1)
    (found,) = run_node(node("MatMul", "a b", "y"), [a, b])
    np.testing.assert_allclose(found, a @ b, rtol=1e-5)
    (found,) = run_node(node("Softmax", "a", "y"), {"a": a}, opset_version=11)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    values, places = run_node(node("TopK", "a k", "v i"), [a, np.array([2])])
    np.testing.assert_array_equal(places, np.argsort(-a, axis=1)[:, :2])
    np.testing.assert_array_equal(values, np.take_along_axis(a, places, 1))


def test_a_model_runs_for_every_shape_that_it_is_fed() -> None:
    rep = prepare(perceptron(), backend="numpy")
    for rows in (1, 3, 1):
        x = numbers(rows, 4, seed=rows)
        (found,) = rep.run([x])
        hidden = np.maximum(x @ numbers(5, 4).T + numbers(5, seed=1), 0)
        wanted = hidden @ numbers(3, 5, seed=2).T + numbers(3, seed=3)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_inputs_on_which_shapes_depend() -> None:
    made = model([node("Reshape", "x to", "y")], {"x": (2, 3), "to": (2, "int64")}, ["y"])
    rep = prepare(made)
    for shape in ((3, 2), (6, 1), (3, 2)):
        (found,) = rep.run({"x": numbers(2, 3), "to": np.array(shape)})
        assert found.shape == shape


def test_outputs_that_need_no_run() -> None:
    made = model(
        [node("Shape", "x", "y"), node("Identity", "x", "z")], {"x": ("a", "b")}, ["y", "z"]
    )
    y, z = run_model(made, [numbers(4, 5)])
    assert y.tolist() == [4, 5]
    np.testing.assert_array_equal(z, numbers(4, 5))


def test_a_dropout_that_trains_draws_from_its_seed() -> None:
    made = model(
        [node("Dropout", "x ratio train", "y mask", seed=3)],
        {"x": (50,)},
        ["y", "mask"],
        {"ratio": np.float32(0.25), "train": np.array(True)},
    )
    x = numbers(50)
    y, mask = run_model(made, [x])
    kept = np.random.RandomState(3).uniform(0, 1, 50) >= 0.25
    np.testing.assert_array_equal(mask, kept)
    np.testing.assert_allclose(y, np.where(kept, x / 0.75, 0), rtol=1e-6)


def test_unsupported_devices_and_dtypes_are_reported() -> None:
    assert supports_device("CPU")
    assert not supports_device("CUDA:1")
    with pytest.raises(gc.GraphError, match="runs on CPU, not on CUDA"):
        prepare(perceptron(), "CUDA")
    rep = prepare(perceptron())
    with pytest.raises(gc.FeedError, match="input 'x' is missing"):
        rep.run([])
    with pytest.raises(gc.FeedError, match="input 'x': graphc has no float16"):
        rep.run([numbers(2, 4).astype(np.float16)])
    half = helper.make_node("Cast", ["x"], ["y"], to=10)
    with pytest.raises(gc.GraphError, match=r"\(Cast\) cannot be imported: graphc has no float16"):
        run_node(half, [numbers(2)])


@pytest.mark.slow
def test_onnx_own_runner() -> None:
    from onnx.backend.test import BackendTest

    tests = BackendTest(graphc.onnx, __name__).include("test_(gemm|relu|dropout|adam|momentum)_")
    result = unittest.TestResult()
    tests.test_suite.run(result)
    assert result.wasSuccessful(), [name for name, _ in result.failures + result.errors]
    run = result.testsRun - len(result.skipped)
    assert run >= 15
