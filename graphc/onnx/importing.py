"""Conversion of a checked model to a net: its initializers, inputs, nodes and outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from graphc.base.errors import GraphError, ModelFileError
from graphc.base.loc import caller_loc
from graphc.base.work import spend_bytes, work_budget
from graphc.declare.net import Net
from graphc.ir.build import Value
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.tensor_type import FLOATS, TensorType
from graphc.onnx.convert import CONVERTERS
from graphc.onnx.function import has_function
from graphc.onnx.model_file import array_of, graphs_of
from graphc.onnx.operands import Operand, Parts, Weight
from graphc.onnx.scope import OWN, Reading, Scope
from graphc.ops.source import Input

OLDEST, NEWEST = 1, 28
"""The operator sets that are supported; converters handle the changes between them."""
MADE = 20
"""The number of nodes that may be made for each node of a model."""
LOSSES, STATES, UPDATES = "graphc.losses", "graphc.states", "graphc.updates"
"""The metadata keys of the names of outputs that are losses, of initializers that are states, and
of outputs that are the next values of states; layers compute those values by themselves.
"""


@dataclass(frozen=True)
class Imported:
    """A net, and the model's outputs: values of the net, or known arrays."""

    net: Net
    outputs: Mapping[str, Operand]


def opsets_of(model: ModelProto) -> dict[str, int]:
    """Return the model's operator sets; raise GraphError if the default one is not supported."""
    found = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    version = found.setdefault("", 1)
    if not OLDEST <= version <= NEWEST:
        raise GraphError(
            f"the model asks for opset {version}, graphc reads {OLDEST} to {NEWEST}",
            loc=caller_loc(),
        )
    return found


def check_ops(model: ModelProto) -> None:
    """Raise GraphError that names all ops of the model without a converter."""
    opsets = opsets_of(model)
    own = {(function.domain, function.name) for function in model.functions}
    missing: Counter[str] = Counter()
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        key = domain, node.op_type
        known = domain == OWN or key in CONVERTERS or (node.domain, node.op_type) in own
        if not known and not has_function(*key, opsets.get(domain, 1)):
            missing[f"{domain}.{node.op_type}" if domain else node.op_type] += 1
    _check_tensors(model)
    if missing:
        ops = ", ".join(f"{op} ({count}x)" for op, count in sorted(missing.items()))
        raise GraphError(
            f"the model {model.graph.name!r} has ops that graphc does not import: {ops}",
            loc=caller_loc(),
        )


def _check_tensors(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.WhichOneof("value") or "tensor_type"
        if kind != "tensor_type":
            raise GraphError(
                f"{value.name!r} of the model {model.graph.name!r} is not a tensor but of the kind "
                f"{kind[:-5]!r}, which graphc does not have",
                loc=caller_loc(),
            )


def import_model(
    model: ModelProto,
    file: str,
    types: Mapping[str, TensorType],
    known: Mapping[str, Array],
    as_written: bool,
) -> Imported:
    """Return the net of a model whose inputs have these types or known arrays."""
    check_ops(model)
    name = model.graph.name if model.graph.name.isprintable() and model.graph.name else "onnx"
    net = Net(name, next((t.dtype for t in types.values() if t.dtype in FLOATS), "float32"))
    functions = {(f.domain, f.name): f for f in model.functions}
    own = model.producer_name == OWN
    states = frozenset(metadata_of(model, STATES)) if own else frozenset()
    reading = Reading(net, file, functions, own, states, as_written)
    scope = Scope(reading, opsets_of(model))
    for key, array in known.items():
        scope.define(key, array)
    for key, type in types.items():
        scope.define(key, net.builder.apply(Input(type.shape, type.dtype), name=key))
    for key, operand in _initializers(model).items():
        if key not in known:
            scope.define(key, operand)
    moved = metadata_of(model, UPDATES) if own and not as_written else ()
    names = [value.name for value in model.graph.output if value.name not in moved]
    scope.run(model.graph.node, names)
    outputs = {name: _output(scope, name) for name in names}
    spend_bytes(sum(o.nbytes for o in outputs.values() if isinstance(o, np.ndarray)))
    return Imported(net, outputs)


def budget_of(model: ModelProto, file: str, work: float | None) -> AbstractContextManager[None]:
    """Return the work budget for making a net from a model; see graphc/base/work.py."""
    nodes = MADE * sum(len(graph) for graph in graphs_of(model))
    return work_budget(file, nbytes=model.ByteSize(), nodes=nodes, work=work)


def metadata_of(model: ModelProto, key: str) -> tuple[str, ...]:
    """Return the names under a key of the metadata."""
    found = {entry.key: entry.value for entry in model.metadata_props}.get(key, "")
    return tuple(found.split("\n")) if isinstance(found, str) else ()


def free_inputs(model: ModelProto) -> list[str]:
    """Return the inputs that are fed: those without an initializer."""
    given = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in given]


def _initializers(model: ModelProto) -> dict[str, Operand]:
    """Return the initializers by name: floats may become parameters, all others are known.

    A float scalar is known, too, unless graphc wrote it: in models of other tools it is part of a
    formula.
    """
    readers = Counter(name for nodes in graphs_of(model) for node in nodes for name in node.input)
    own = model.producer_name == OWN
    found: dict[str, Operand] = {}
    for tensor in model.graph.initializer:
        array = array_of(tensor)
        if tensor.name in found:
            raise ModelFileError(f"there are two initializers {tensor.name!r}")
        trained = array.dtype.name in FLOATS and (own or array.ndim > 0)
        found[tensor.name] = (
            Weight(tensor.name, array, readers[tensor.name] > 1) if trained else array
        )
    return found


def _output(scope: Scope, name: str) -> Operand:
    found = scope.values.get(name)
    if found is None:
        raise ModelFileError(f"no node of the model makes its output {name!r}")
    if isinstance(found, Parts):
        raise ModelFileError(f"the model's output {name!r} is a sequence, not a tensor")
    return scope.value(found) if isinstance(found, Weight) else found


def as_net(imported: Imported, losses: tuple[str, ...]) -> Net:
    """Return the net with its outputs; known ones become constants of it."""
    net = imported.net
    for name, operand in imported.outputs.items():
        value = operand if isinstance(operand, Value) else net.constant(np.asarray(operand))
        if name in losses and value.shape == () and value.type.is_float:
            net.loss(name, value)
        else:
            net.output(name, value)
    return Net.of(_needed(net.graph()), net.dtype)


def _needed(graph: Graph) -> Graph:
    """Return the graph without the nodes that nothing reads."""
    needed = graph.forward()
    updates = {state: value for state, value in graph.updates.items() if state in needed}
    needed |= graph.upstream(updates.values())
    kept = [node for node in graph if node.name in needed or node.op.is_input]
    return Graph(graph.name, kept, outputs=graph.outputs, losses=graph.losses, updates=updates)
