"""`gc.onnx.load`: make a net from a checked model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, ValueInfoProto

from graphc.base.errors import GraphError, ModelFileError
from graphc.base.work import spend_bytes, work_budget
from graphc.declare.net import Net
from graphc.ir.build import Value
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.tensor_type import FLOATS, Batch, Dim, N, TensorType, count
from graphc.onnx.call import (
    KnownSequence,
    NeedsInputs,
    NotSupported,
    Operand,
    RowIndices,
    Weight,
    dtype_of,
)
from graphc.onnx.convert import CONVERTERS
from graphc.onnx.folding import expanded
from graphc.onnx.function import has_function
from graphc.onnx.model_file import array_of, graphs_of, read_model
from graphc.onnx.narrow import declared_narrow, held
from graphc.onnx.pytorch import for_inference, recorded
from graphc.onnx.scope import DOMAIN, Reading, Scope
from graphc.ops.source import Input, check_plain_name

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
        raise GraphError(f"the model asks for opset {version}, graphc reads {OLDEST} to {NEWEST}")
    return found


def check_ops(model: ModelProto) -> None:
    """Check that all ops of a model can be read; raise one GraphError that names the others."""
    opsets = opsets_of(model)
    own = {(function.domain, function.name) for function in model.functions}
    missing: Counter[str] = Counter()
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        key = domain, node.op_type
        known = domain == DOMAIN or key in CONVERTERS or (node.domain, node.op_type) in own
        if not known and not has_function(*key, opsets.get(domain, 1)):
            missing[f"{domain}.{node.op_type}" if domain else node.op_type] += 1
    _check_tensors(model)
    if missing:
        ops = ", ".join(f"{op} ({count}x)" for op, count in sorted(missing.items()))
        raise GraphError(
            f"the model {model.graph.name!r} has ops that graphc does not import: {ops}"
        )


def _check_tensors(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.WhichOneof("value") or "tensor_type"
        if kind != "tensor_type":
            raise GraphError(
                f"{value.name!r} of the model {model.graph.name!r} is not an array but of the kind "
                f"{kind[:-5]!r}, which graphc does not have"
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
    own = model.producer_name == DOMAIN
    kinds = {} if own else recorded(model)
    states = frozenset(metadata_of(model, STATES)) if own else _named(kinds, "buffer")
    reading = Reading(net, file, functions, own, states, as_written)
    scope = Scope(reading, opsets_of(model), narrow={*declared_narrow(model.graph)})
    for key, array in known.items():
        scope.define(key, held(array, ()) if key in scope.narrow else array)
    for key, type in types.items():
        given = net.builder.apply(_input(key, type, own, as_written), name=key)
        scope.define(key, held(given, ()) if key in scope.narrow else given)
    for key, operand in _initializers(model, _named(kinds, "constant")).items():
        if key not in known:
            scope.define(key, operand)
            if own:  # in the order of the file, not of their readers
                scope.value(operand)
    moved = metadata_of(model, UPDATES) if own and not as_written else ()
    names = [value.name for value in model.graph.output if value.name not in moved]
    scope.run(model.graph.node, names)
    outputs = {name: _output(scope, name) for name in names}
    spend_bytes(sum(o.nbytes for o in outputs.values() if isinstance(o, np.ndarray)))
    return Imported(net, outputs)


def _input(name: str, type: TensorType, own: bool, as_written: bool) -> Input:
    """Return an input; one of the names that graphc gives to lengths has them from graphc alone."""
    op = Input(type.shape, type.dtype)
    if own and not as_written:
        return op.named(name)
    if not as_written:
        check_plain_name(op, name)
    return op


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


def _named(kinds: Mapping[str, str], kind: str) -> frozenset[str]:
    return frozenset(name for name in kinds if kinds[name] == kind)


def _initializers(model: ModelProto, constants: Collection[str]) -> dict[str, Operand]:
    """Return the initializers by name: floats may become parameters, all others are known.

    A float scalar is known, too, unless graphc wrote it: others' are parts of formulas.
    """
    readers = Counter(name for nodes in graphs_of(model) for node in nodes for name in node.input)
    own = model.producer_name == DOMAIN
    found: dict[str, Operand] = {}
    for tensor in model.graph.initializer:
        array = array_of(tensor)
        if tensor.name in found:
            raise ModelFileError(f"there are two initializers {tensor.name!r}")
        trained = array.dtype.name in FLOATS and (own or array.ndim > 0)
        trained &= tensor.name not in constants
        found[tensor.name] = (
            Weight(tensor.name, array, readers[tensor.name] > 1) if trained else array
        )
    return found


def _output(scope: Scope, name: str) -> Operand:
    found = scope.values.get(name)
    if found is None:
        raise ModelFileError(f"no node of the model makes its output {name!r}")
    if isinstance(found, KnownSequence):
        raise ModelFileError(f"the model's output {name!r} is a sequence, not an array")
    if isinstance(found, RowIndices):
        raise GraphError(f"the model's output {name!r} is the numbers of the rows")
    return scope.value(found) if isinstance(found, Weight) else found


def as_net(imported: Imported, losses: tuple[str, ...]) -> Net:
    """Return the net of an imported model; outputs that are known arrays become constants."""
    net = imported.net
    for name, operand in imported.outputs.items():
        value = operand if isinstance(operand, Value) else net.constant(np.asarray(operand))
        if name in losses and value.shape == () and value.type.is_float:
            net.loss(name, value)
        else:
            net.output(name, value)
    return Net.of(_needed(net.graph()), net.dtype)


def _needed(graph: Graph) -> Graph:
    """Return the graph without dead nodes."""
    needed = graph.forward()
    updates = {state: value for state, value in graph.updates.items() if state in needed}
    needed |= graph.upstream(updates.values())
    kept = [node for node in graph if node.name in needed or node.op.is_input]
    return Graph(graph.name, kept, outputs=graph.outputs, losses=graph.losses, updates=updates)


def load(
    source: str | Path | ModelProto,
    *,
    dims: Mapping[str, Dim] | None = None,
    inputs: Mapping[str, Any] | None = None,
    external_data: bool = False,
    work: float | None = None,
) -> Net:
    """Read an ONNX model as a net.

    Initializers of floats become parameters under their names, with their numbers as initial
    values.  BatchNormalization and Dropout become layers, which act differently in inference and in
    training.  Values that the model computes from shapes alone are computed now.  The first
    dimension of an input becomes `gc.N` if it has no fixed size.

    Parameters
    ----------
    source
        A path, or an `onnx.ModelProto`.
    dims
        Sizes for other dimensions, by name: `{"sequence": 128}`; `{"batch": gc.N}` says which
        dimension is the batch.
    inputs
        Arrays for inputs whose numbers determine shapes, by name.
    external_data
        Whether to read data in other files, from the model's own folder only.
    work
        A factor for the work that a file may take (see docs/files.md); by default 1.

    Returns
    -------
    Net
        The net, with the model's inputs and outputs under their names.

    Raises
    ------
    ModelFileError
        If the file is not a model, or does not fit its own description.
    GraphError
        If graphc cannot express the model; the error names the node.

    Examples
    --------
    >>> net = gc.Net("small")
    >>> y = net.output("y", gc.relu(gc.affine(net.input("x", (gc.N, 4)), 8), name="hidden"))
    >>> gc.onnx.load(gc.onnx.to_proto(net))["hidden"]
    <hidden: float32[N, 8]>
    """
    model, file = read_model(source, external_data)
    dims, inputs = _mapping("dims", dims), _mapping("inputs", inputs)
    _check_names("input", inputs, free_inputs(model))
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input]
    names = dict.fromkeys(dim.dim_param for shape in shapes for dim in shape if dim.dim_param)
    _check_names("dimension", dims, list(names))
    known = {name: _known_input(model, name, given) for name, given in inputs.items()}
    types = _types_of_inputs(model, dims, known)
    return _net_of(model, file, types, known, work)


def _net_of(
    model: ModelProto,
    file: str,
    types: Mapping[str, TensorType],
    known: Mapping[str, Array],
    work: float | None,
) -> Net:
    """Return the net of a model within a work budget; raise GraphError if it needs more inputs."""
    try:
        with budget_of(model, file, work):
            imported = import_model(model, file, types, known, as_written=False)
            net = as_net(imported, metadata_of(model, LOSSES))
            if model.producer_name != DOMAIN:
                net.for_inference = for_inference(model)
            expanded(net.graph(), train=True)  # charges the budget for the ops that layers become
            return net
    except NeedsInputs as error:
        names = " and ".join(map(repr, error.names))
        raise GraphError(
            f"shapes in {file} depend on the numbers of input {names}",
            hint=f"give them now: load(path, inputs={{{error.names[0]!r}: ...}})",
        ) from None


def _mapping(name: str, given: object) -> Mapping[str, Any]:
    if given is None or isinstance(given, Mapping):
        return given or {}
    raise GraphError(f"load: {name} is a {type(given).__name__}, it must be a dictionary by names")


def _check_names(kind: str, given: Iterable[str], there: Sequence[str]) -> None:
    for name in given:
        if name not in there:
            raise GraphError(
                f"the model has no {kind} {name!r}",
                hint=f"it has {', '.join(there)}" if there else "it has none with a name",
            )


def _known_input(model: ModelProto, name: str, given: Any) -> Array:
    """Return the array that is fixed for an input; raise GraphError if it does not fit it."""
    info = next(value for value in model.graph.input if value.name == name)
    dtype, dims = _dtype(info), info.type.tensor_type.shape.dim
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
    try:
        array = np.asarray(given)
    except ValueError:
        raise GraphError(f"input {name!r} is given no array") from None
    fits = not info.type.tensor_type.HasField("shape") or len(sizes) == array.ndim
    fits &= all(isinstance(a, str) or a == b for a, b in zip(sizes, array.shape, strict=False))
    if not fits or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise GraphError(
            f"input {name!r} takes {dtype}[{', '.join(map(str, sizes))}], the array given for it "
            f"is {array.dtype}{list(array.shape)}"
        )
    return array.astype(dtype)


def _types_of_inputs(
    model: ModelProto, dims: Mapping[str, Dim], known: Collection[str]
) -> dict[str, TensorType]:
    """Return the types of free inputs by name; raise GraphError for a dimension without a size."""
    free = [name for name in free_inputs(model) if name not in known]
    infos = {value.name: value for value in model.graph.input}
    batch = "N" if model.producer_name == DOMAIN else _batch_name(model, dims)
    return {name: _type(infos[name], dims, batch) for name in free}


def _batch_name(model: ModelProto, dims: Mapping[str, Dim]) -> str | None:
    """Return the model's name for the batch: that of a first dimension without a size, or None."""
    for name, dim in dims.items():
        if isinstance(dim, Batch):
            return name
    for value in model.graph.input:
        shape = value.type.tensor_type.shape.dim
        if shape and shape[0].dim_param and shape[0].dim_param not in dims:
            return str(shape[0].dim_param)
    return None


def _type(info: ValueInfoProto, dims: Mapping[str, Dim], batch: str | None) -> TensorType:
    tensor = info.type.tensor_type
    if not info.type.HasField("tensor_type"):
        raise GraphError(f"input {info.name!r} is not an array")
    if not tensor.HasField("shape"):
        raise GraphError(f"input {info.name!r} has no shape")
    shape = tuple(
        _dim(info.name, axis, dim, dims, batch) for axis, dim in enumerate(tensor.shape.dim)
    )
    try:
        return TensorType(shape, _dtype(info))
    except ValueError as error:
        raise _unfit(info, error) from None


def _dtype(info: ValueInfoProto) -> str:
    try:
        return dtype_of(info.type.tensor_type.elem_type)
    except NotSupported as error:
        raise _unfit(info, error) from None


def _unfit(info: ValueInfoProto, error: ValueError) -> GraphError:
    sentence, _, hint = str(error).partition("\n")
    return GraphError(f"input {info.name!r}: {sentence}", hint=hint)


def _dim(name: str, axis: int, dim: Any, dims: Mapping[str, Dim], batch: str | None) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    called = str(dim.dim_param)
    if called in dims:
        return dims[called]
    if called == batch or (axis == 0 and not called):
        return N
    parts = called.split("*")  # how graphc writes a multiple, such as 2*N or N*N
    factors = [int(part) for part in parts if part.isdecimal()]
    if batch in parts and 0 not in factors and len(factors) + parts.count(batch) == len(parts):
        return count((*factors, *[N] * parts.count(batch)))
    what = f"dimension {called!r}" if called else f"dimension {axis}"
    raise GraphError(
        f"{what} of input {name!r} has no size; only the batch stays open",
        hint=f"give it: load(path, dims={{{called or 'name'!r}: 128}})",
    )
