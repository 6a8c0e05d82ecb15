"""Other ways to run the net of an executor: as the ONNX model that it becomes.

`graphc verify --run` compares each with the reference rules of the declared net.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.defs import get_schema
from onnx.reference import ReferenceEvaluator

from graphc.base.errors import GraphError
from graphc.compiler.compile import compile
from graphc.ir.op import Array
from graphc.onnx.load import load
from graphc.onnx.save import to_proto
from graphc.runtime.executor import Executor


def there_and_back(ex: Executor) -> Executor:
    """Return an executor of the net that is read from the ONNX model of `ex`."""
    net = load(to_proto(ex))
    return Executor(compile(net, batch=ex.plan.batch, backend=ex.plan.backend))


@dataclass(frozen=True)
class Evaluated:
    """An ONNX model that ONNX's reference evaluator runs."""

    model: ModelProto

    @classmethod
    def of(cls, ex: Executor) -> Evaluated:
        """Return the ONNX model of an executor."""
        return cls.of_model(to_proto(ex))

    @classmethod
    def of_model(cls, model: ModelProto) -> Evaluated:
        """Return a model; raise GraphError for what is evaluated wrongly."""
        for node in model.graph.node:
            groups = [a.i for a in node.attribute if a.name == "group"]
            if node.op_type == "ConvTranspose" and groups != [1]:
                raise GraphError("the evaluator adds biases of groups wrongly")
        return cls(model)

    def forward(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name; raise GraphError for what the evaluator cannot run."""
        names = [value.name for value in self.model.graph.output]
        known = {value.name for value in self.model.graph.input}
        given = {name: array for name, array in feeds.items() if name in known}
        try:
            with np.errstate(all="ignore"):
                found = ReferenceEvaluator(self.model).run(names, given)
        except Exception as error:  # of an op that it does not implement, whatever it raises
            raise GraphError(f"the evaluator raises {type(error).__name__}") from error
        return dict(zip(names, map(np.asarray, found), strict=True))


def as_in_file(path: str) -> Callable[[Executor], Evaluated]:
    """Return the way to run the model of a file, by ONNX's evaluator, with the weights in it."""

    def evaluated(ex: Executor) -> Evaluated:
        ex.state = Executor(ex.plan).snapshot()
        return Evaluated.of_model(onnx.load(path))

    return evaluated


OTHER_WAYS: Mapping[str, Callable[[Executor], Executor | Evaluated]] = {
    "ONNX, there and back": there_and_back,
    "ONNX's reference evaluator": Evaluated.of,
}
"""The ways by their names in reports."""


def leave_defaults_out(model: ModelProto) -> int:
    """Delete attributes with a default, and shapes that may follow from them; return how many."""
    versions, count = {opset.domain: opset.version for opset in model.opset_import}, 0
    for node in model.graph.node:
        if not node.domain:
            schema = get_schema(node.op_type, versions[""], "").attributes
            kept = [a for a in node.attribute if not schema[a.name].default_value.name]
            count += len(node.attribute) - len(kept)
            del node.attribute[:]
            node.attribute.extend(kept)
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return count


def layer_model(
    op: str,
    names: tuple[Sequence[str], Sequence[str]],
    x: Array,
    held: Mapping[str, Array],
    attributes: Mapping[str, Any],
) -> ModelProto:
    """Return the model of one node, whose input is `x` and whose other operands are held."""
    inputs, outputs = names
    graph = helper.make_graph(
        [helper.make_node(op, inputs, outputs, **attributes)],
        op,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, ir_version=9, opset_imports=opsets)
