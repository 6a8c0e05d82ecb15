"""ONNX Runtime, inference only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tests.tools.benchmarks.peers.outline import Array
from tests.tools.benchmarks.peers.sides.side import Infer, Side
from tests.tools.benchmarks.peers.workloads import Workload

OPSET, IR = 17, 9


class Model:
    """A maker of an ONNX model; values are names."""

    def __init__(self, parameters: list[Array], batch: int) -> None:
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.constants = [numpy_helper.from_array(p, f"p{i}") for i, p in enumerate(parameters)]
        self.result = ""
        self._names = (f"p{i}" for i in range(len(parameters)))
        self._batch = batch

    def input(self, name: str, width: int) -> str:
        shape = [self._batch, width]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def target(self, name: str, width: int) -> str:
        return name

    labels = target

    def affine(self, h: str, width: int) -> str:
        return self._node("Gemm", h, next(self._names), next(self._names))

    def relu(self, h: str) -> str:
        return self._node("Relu", h)

    def add(self, a: str, b: str) -> str:
        return self._node("Add", a, b)

    def concat(self, a: str, b: str) -> str:
        return self._node("Concat", a, b, axis=1)

    def output(self, h: str) -> None:
        self.result = h

    def softmax_loss(self, scores: str, labels: str) -> None:
        """Inference has no loss."""

    mse_loss = softmax_loss

    def model(self) -> bytes:
        """The model in ONNX's format."""
        result = helper.make_tensor_value_info(self.result, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", self.inputs, [result], self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=IR)
        return bytes(made.SerializeToString())

    def _node(self, kind: str, *ins: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(ins), [name], **attributes))
        return name


class OnnxRuntime(Side):
    """All optimisations, the CPU provider."""

    def versions(self) -> str:
        return f"onnxruntime {onnxruntime.__version__}"

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        made = Model(parameters, batch)
        workload.declare(made)  # type: ignore[arg-type]
        return self._session(made.model())

    def load(self, path: Path, batch: int) -> Infer:
        return self._session(str(path.with_suffix(".onnx")))

    def _session(self, model: bytes | str) -> Infer:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda feeds: session.run(None, feeds)[0]
