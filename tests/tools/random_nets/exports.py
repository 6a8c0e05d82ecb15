"""A case as an ONNX model: checked by onnx, and run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc

from .compare import Wrong
from .drawer import Skip
from .runs import executor, outputs
from .transformations import Check


def proto(c: Check) -> Any:
    """Return the model of a case at its start; Skip what has no form in ONNX."""
    return model_of(c, executor(c.case, c.plan))


def model_of(c: Check, ex: gc.Executor) -> Any:
    """Return the model of an executor of a case; Skip what has no form in ONNX."""
    try:
        return gc.onnx.to_proto(ex)
    except gc.GraphError as error:
        if any(call.function == "gc.grad" for call in c.case.calls) or "no form of it" in str(
            error
        ):
            raise Skip from error
        raise


def checked(c: Check) -> None:
    """Let onnx check the model in full."""
    import onnx

    model = proto(c)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise Wrong(f"onnx's check: {error}") from error


def run_elsewhere(c: Check) -> None:
    """Run the model by ONNX Runtime."""
    import onnxruntime

    model = proto(c)
    turn = next((t for t, (a, _) in enumerate(c.case.actions) if a == "infer"), None)
    if turn is None or any(a != "infer" for a, _ in c.case.actions[:turn]):
        raise Skip
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) or "NotImplemented" in type(error).__name__:
            raise Skip from error  # It has no kernel for an op in this dtype.
        raise Wrong(f"ONNX Runtime: {error}") from error
    feeds = c.case.feeds(c.case.actions[turn][1], turn)
    names = {i.name for i in session.get_inputs()}
    found = session.run(None, {n: np.asarray(a) for n, a in feeds.items() if n in names})
    result = outputs(dict(zip([o.name for o in session.get_outputs()], found, strict=True)))
    # Attributes such as the slope of a leaky relu are float32 in ONNX.
    c.coarse().compare("ONNX Runtime", [result if t == turn else {} for t in range(len(c.base))])
