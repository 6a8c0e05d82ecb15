"""The same graph in float64, where differences are exact enough to judge a derivative by."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Op, attributes
from graphc.ops.source import Constant


def in_float64(graph: Graph) -> Graph:
    """Return the graph with float64 values, attributes and constants, and types inferred again."""
    made: dict[str, Node] = {}
    for node in graph:
        op = widened(node.op)
        type = op.infer([made[name].type for name in node.inputs])
        made[node.name] = dataclasses.replace(node, op=op, type=type)
    return graph.with_nodes(made.values())


def widened(op: Op) -> Op:
    """Return the op with float64 wherever an attribute is float32."""
    if isinstance(op, Constant):
        if op.dtype != "float32":
            return op
        return Constant(op.shape, "float64", _wide(op.array()).tobytes())
    changed: dict[str, Any] = {k: "float64" for k, v in attributes(op).items() if v == "float32"}
    return dataclasses.replace(op, **changed) if changed else op


def _wide(array: Array) -> Array:
    """Return an array in float64; a single number as it was written, 0.999 for 0.99900001."""
    return np.asarray(float(str(array[()]))) if array.ndim == 0 else array.astype("float64")
