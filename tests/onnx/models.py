"""Small ONNX models by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphc.ir.op import Array

KINDS = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint32": TensorProto.UINT32,
    "bool": TensorProto.BOOL,
}


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node, its operands and results as words; "-" is a missing one."""
    names = ([("" if name == "-" else name) for name in text.split()] for text in (inputs, outputs))
    return helper.make_node(op, *names, name=f"the {op}", **attributes)


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Sequence[str],
    weights: Mapping[str, Array] | None = None,
    opset: int = 18,
    **more: Any,
) -> ModelProto:
    """A model whose inputs are of these shapes, in float32 unless a shape ends with a dtype."""
    infos = []
    for name, shape in inputs.items():
        dtype = "float32"
        if shape and shape[-1] in KINDS:
            *shape, dtype = shape
        infos.append(helper.make_tensor_value_info(name, KINDS[dtype], list(shape)))
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "net", infos, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)
