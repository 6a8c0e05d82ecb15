"""Models as others run them: ONNX Runtime, and ONNX's reference evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx
import onnxruntime
from onnx import ModelProto, NodeProto
from onnx.reference import ReferenceEvaluator

from graphc.ir.op import Array

Results = dict[str, Array]


def by_runtime(model: ModelProto, feeds: Mapping[str, Array]) -> Results:
    """Its outputs by ONNX Runtime."""
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return _by_name(model, feeds, session.run)


def by_reference(model: ModelProto, feeds: Mapping[str, Array]) -> Results:
    """Its outputs by ONNX's reference evaluator."""
    return _by_name(model, feeds, ReferenceEvaluator(model).run)  # type: ignore[arg-type]


def _by_name(model: ModelProto, feeds: Mapping[str, Array], run: Callable[..., object]) -> Results:
    names = [value.name for value in model.graph.output]
    known = {value.name for value in model.graph.input}
    given = {name: array for name, array in feeds.items() if name in known}
    return dict(zip(names, run(names, given), strict=True))  # type: ignore[call-overload]


def by_both(model: ModelProto, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Results]]:
    """Who computes, and what; the model is checked in full before."""
    onnx.checker.check_model(model, full_check=True)
    yield "ONNX Runtime", by_runtime(model, feeds)
    if not any(map(_is_backward, model.graph.node)):  # it does not implement that
        yield "the reference evaluator", by_reference(model, feeds)


def _is_backward(node: NodeProto) -> bool:
    """Whether it is a scan from the last step to the first."""
    ways = (a.ints for a in node.attribute if a.name == "scan_input_directions")
    return any(map(any, ways))
