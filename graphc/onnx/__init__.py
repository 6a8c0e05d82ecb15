"""Import and export of ONNX models, and ONNX's own backend interface.

`load` makes a net from a model, `save` a model from a net; `prepare`, `run_model`, `run_node` and
`supports_device` are the functions that `onnx.backend` asks of a backend.
"""

from __future__ import annotations

from graphc.base.errors import GraphError

try:
    import onnx as _onnx  # noqa: F401
except ImportError:
    raise GraphError(
        "ONNX models are read and written by onnx, which is not installed",
        hint="pip install 'graphc-nn[onnx]'",
    ) from None

from graphc.onnx.backend import (
    GraphcBackend,
    GraphcRep,
    prepare,
    run_model,
    run_node,
    supports_device,
)
from graphc.onnx.load import load
from graphc.onnx.save import save, to_proto

__all__ = [
    "GraphcBackend",
    "GraphcRep",
    "load",
    "prepare",
    "run_model",
    "run_node",
    "save",
    "supports_device",
    "to_proto",
]
