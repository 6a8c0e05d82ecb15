"""OpenVINO, inference only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset13 as ops

from tests.tools.benchmarks.peers.outline import Array
from tests.tools.benchmarks.peers.sides.side import Infer, Side
from tests.tools.benchmarks.peers.workloads import Workload


class Model:
    """A maker of an OpenVINO model."""

    def __init__(self, parameters: list[Array], batch: int) -> None:
        self.inputs: dict[str, Any] = {}
        self.result: Any = None
        self._parameters, self._batch = iter(parameters), batch

    def input(self, name: str, width: int) -> Any:
        made = ops.parameter([self._batch, width], np.float32, name=name)
        return self.inputs.setdefault(name, made)

    def target(self, name: str, width: int) -> None:
        """Inference has no loss."""

    labels = target

    def affine(self, h: Any, width: int) -> Any:
        weight, bias = next(self._parameters), next(self._parameters)
        product = ops.matmul(h, ops.constant(weight), False, False)
        return ops.add(product, ops.constant(bias.reshape(1, -1)))

    def relu(self, h: Any) -> Any:
        return ops.relu(h)

    def add(self, a: Any, b: Any) -> Any:
        return ops.add(a, b)

    def concat(self, a: Any, b: Any) -> Any:
        return ops.concat([a, b], 1)

    def output(self, h: Any) -> None:
        self.result = h

    def softmax_loss(self, scores: Any, labels: Any) -> None:
        """Inference has no loss."""

    mse_loss = softmax_loss


class OpenVino(Side):
    """Tuned for latency, in float32: by itself it may choose bfloat16."""

    precision = "f32"

    def versions(self) -> str:
        return f"openvino {openvino.__version__}"

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        made = Model(parameters, batch)
        workload.declare(made)  # type: ignore[arg-type]
        model = openvino.Model([made.result], list(made.inputs.values()), "net")
        return self._compiled(model, list(made.inputs))

    def load(self, path: Path, batch: int) -> Infer:
        model = openvino.Core().read_model(path.with_suffix(".onnx"))
        model.reshape([batch, *list(model.input(0).partial_shape)[1:]])
        return self._compiled(model, ["x"])

    def _compiled(self, model: Any, names: list[str]) -> Infer:
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": self.precision,
        }
        compiled = openvino.compile_model(model, "CPU", options)
        request, result = compiled.create_infer_request(), compiled.output(0)

        def infer(feeds: Any) -> Any:
            arrays = [feeds[name] for name in names]
            return request.infer(arrays, share_inputs=True)[result]

        return infer


class Bfloat16(OpenVino):
    """Products in bfloat16."""

    precision = "bf16"
    bits = 8
