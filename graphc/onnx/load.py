"""`gc.onnx.load`: a trainable net from an ONNX model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, ValueInfoProto

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.declare.net import Net
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, Dim, N, TensorType
from graphc.onnx.folding import expanded
from graphc.onnx.importing import LOSSES, as_net, budget_of, free_inputs, import_model, metadata_of
from graphc.onnx.model_file import read_model
from graphc.onnx.operands import NeedsInputs, NotSupported, dtype_of
from graphc.onnx.scope import OWN


def load(
    source: str | Path | ModelProto,
    *,
    dims: Mapping[str, Dim] | None = None,
    inputs: Mapping[str, Any] | None = None,
    external_data: bool = False,
    work: float | None = None,
) -> Net:
    """Return a net from the model: a path, or an `onnx.ModelProto`.

    Initializers of floats become parameters under their names, with their numbers as initial
    values.  BatchNormalization and Dropout become layers, which act differently in inference and in
    training.  Values that the model computes from shapes alone are computed now.

    The first dimension of inputs stays open if it has a name or none: it is `gc.N`.  `dims` gives
    sizes to dimensions by their names: `{"sequence": 128}`; `{"batch": gc.N}` says which one is the
    batch.  `inputs` fixes the arrays of inputs on which shapes depend.  Tensor data in other files
    are read only with `external_data=True`, and only from the model's own folder.  `work`
    multiplies the work that a file may take (see docs/files.md).

    Raise ModelFileError for a file that is not a model or does not fit its own description,
    GraphError, naming the node, if graphc cannot express it.
    """
    model, file = read_model(source, external_data)
    dims, inputs = _mapping("dims", dims), _mapping("inputs", inputs)
    _check_names("input", inputs, free_inputs(model))
    _check_names("dimension", dims, _names_of_dims(model))
    known = {name: _known_input(model, name, given) for name, given in inputs.items()}
    types = _types_of_inputs(model, dims, known)
    try:
        with budget_of(model, file, work):
            imported = import_model(model, file, types, known, as_written=False)
            net = as_net(imported, metadata_of(model, LOSSES))
            expanded(net.graph(), train=True)  # charges the budget for the ops that layers become
            return net
    except NeedsInputs as error:
        names = " and ".join(map(repr, error.names))
        raise GraphError(
            f"shapes in {file} depend on the numbers of input {names}",
            loc=caller_loc(),
            hint=f"give them now: load(path, inputs={{{error.names[0]!r}: ...}})",
        ) from None


def _mapping(name: str, given: object) -> Mapping[str, Any]:
    if given is None or isinstance(given, Mapping):
        return given or {}
    raise GraphError(
        f"load: {name} is a {type(given).__name__}, it must be a dictionary by names",
        loc=caller_loc(),
    )


def _check_names(kind: str, given: Iterable[str], there: Sequence[str]) -> None:
    for name in given:
        if name not in there:
            raise GraphError(
                f"the model has no {kind} {name!r}",
                loc=caller_loc(),
                hint=f"it has {', '.join(there)}" if there else "it has none with a name",
            )


def _names_of_dims(model: ModelProto) -> list[str]:
    """Return the names of the inputs' named dimensions."""
    shapes = (value.type.tensor_type.shape.dim for value in model.graph.input)
    return list(dict.fromkeys(dim.dim_param for shape in shapes for dim in shape if dim.dim_param))


def _known_input(model: ModelProto, name: str, given: Any) -> Array:
    """Return the array that is fixed for an input; raise GraphError if it does not fit it."""
    info = next(value for value in model.graph.input if value.name == name)
    dtype, dims = _dtype(info), info.type.tensor_type.shape.dim
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
    try:
        array = np.asarray(given)
    except ValueError:
        raise GraphError(f"input {name!r} is given no array", loc=caller_loc()) from None
    fits = not info.type.tensor_type.HasField("shape") or len(sizes) == array.ndim
    fits &= all(isinstance(a, str) or a == b for a, b in zip(sizes, array.shape, strict=False))
    if not fits or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise GraphError(
            f"input {name!r} takes {dtype}[{', '.join(map(str, sizes))}], the array given for it "
            f"is {array.dtype}{list(array.shape)}",
            loc=caller_loc(),
        )
    return array.astype(dtype)


def _types_of_inputs(
    model: ModelProto, dims: Mapping[str, Dim], known: Collection[str]
) -> dict[str, TensorType]:
    """Return the types of free inputs by name; raise GraphError for a dimension without a size."""
    free = [name for name in free_inputs(model) if name not in known]
    infos = {value.name: value for value in model.graph.input}
    batch = "N" if model.producer_name == OWN else _batch_name(model, dims)
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
        raise GraphError(f"input {info.name!r} is not a tensor", loc=caller_loc())
    if not tensor.HasField("shape"):
        raise GraphError(f"input {info.name!r} has no shape", loc=caller_loc())
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
    return GraphError(f"input {info.name!r}: {sentence}", loc=caller_loc(), hint=hint)


def _dim(name: str, axis: int, dim: Any, dims: Mapping[str, Dim], batch: str | None) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    called = str(dim.dim_param)
    if called in dims:
        return dims[called]
    if called == batch or (axis == 0 and not called):
        return N
    factor, _, rest = called.partition("*")
    if factor.isdecimal() and int(factor) > 0 and rest == batch:  # how graphc writes a multiple
        return N * int(factor)
    what = f"dimension {called!r}" if called else f"dimension {axis}"
    raise GraphError(
        f"{what} of input {name!r} has no size; only the batch stays open",
        loc=caller_loc(),
        hint=f"give it: load(path, dims={{{called or 'name'!r}: 128}})",
    )
