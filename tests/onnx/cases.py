"""The cases that ONNX has for its ops, and which of them graphc is held to."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from onnx.backend.test.case import base, node
from onnx.backend.test.case.node import _NodeTestCases
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner, _normalize_tensor

import graphc.onnx

SKIPPED = Path(__file__).with_name("skipped.txt")
"""A line for each case that does not pass: its name, a tab, and why."""

_FIRST = """
Gemm MatMul
Relu LeakyRelu Elu Selu PRelu Gelu Sigmoid Tanh Softplus Softsign
BatchNormalization Dropout
SoftmaxCrossEntropyLoss NegativeLogLikelihoodLoss Softmax LogSoftmax
Add Sub Mul Div Neg Abs Exp Log Sqrt Pow Max Min Sum
Flatten Reshape Transpose Concat
ReduceSum ReduceMean ReduceMax
Adam Adagrad Momentum
"""
_MORE = """
Conv ConvTranspose MaxPool AveragePool GlobalAveragePool GlobalMaxPool
LayerNormalization GroupNormalization InstanceNormalization RMSNormalization LRN
LpNormalization MeanVarianceNormalization
Pad Slice Split Squeeze Unsqueeze Expand Tile Gather Where Identity Constant Shape Size
ConstantOfShape Range Cast
Equal Less Greater LessOrEqual GreaterOrEqual And Or Not Xor
Clip Sign Reciprocal Erf Ceil Floor HardSigmoid HardSwish Mish ThresholdedRelu
ReduceMin ReduceProd ReduceSumSquare ReduceL1 ReduceL2 ArgMax
"""

S1 = frozenset(_FIRST.split())
"""What a perceptron and its training are made of: 41 ops."""

S2 = S1 | frozenset(_MORE.split())
"""And what networks of images are made of: 95 ops."""

DTYPES = frozenset({1, 11, 9, *(3, 5, 6, 7), *(2, 4, 12, 13)})
"""ONNX's numbers of float, double, bool, and whole numbers of 8 to 64 bits."""


@cache
def all_cases() -> dict[str, Any]:
    """Every node case by name; it takes seconds to make them."""
    return {case.name: case for case in load_model_tests(kind="node")}


def modules() -> list[str]:
    """The names of the modules that make cases, one for most ops."""
    return [each.name for each in iter_modules(node.__path__) if not each.name.startswith("_")]


def some_cases(modules: Iterable[str]) -> list[Any]:
    """The cases of some ops, by the modules that make them, without their source as text."""
    prefix = "onnx.backend.test.case.node."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "process_snippet", lambda *_: ("", ""), raising=False)
        models = {importlib.import_module(prefix + module).__name__ for module in modules}
    assert models
    return list(_NodeTestCases)


@cache
def skipped() -> dict[str, str]:
    """Why, by the name of the case."""
    lines = SKIPPED.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if line]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def run(case: Any, **how: Any) -> None:
    """Run a case as ONNX's own runner does; AssertionError where numbers are others."""
    rep = graphc.onnx.prepare(case.model, **how)
    for inputs, outputs in case.data_sets:
        found = rep.run([_normalize_tensor(array) for array in inputs])
        wanted = [_normalize_tensor(array) for array in outputs]
        Runner.assert_similar_outputs(wanted, found, case.rtol, case.atol)


def ops_of(case: Any) -> set[str]:
    return {node.op_type for node in case.model.graph.node}


def of_dtypes(case: Any) -> bool:
    """Whether all that goes in and out is of dtypes that graphc is about."""
    values = (*case.model.graph.input, *case.model.graph.output)
    return all(value.type.tensor_type.elem_type in DTYPES for value in values)
