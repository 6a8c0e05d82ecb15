"""`gc.onnx.load`: a trainable net from an ONNX model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.declare.net import Net
from graphc.onnx.expand import expanded
from graphc.onnx.importing import (
    LOSSES,
    as_net,
    budget_of,
    free_inputs,
    import_model,
    metadata_of,
)
from graphc.onnx.inputs import known_input, names_of_dims, types_of_inputs
from graphc.onnx.known import NeedsInputs
from graphc.onnx.read import read_model

if TYPE_CHECKING:
    from onnx import ModelProto

    from graphc.ir.tensor_type import Dim


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
    _check_names("dimension", dims, names_of_dims(model))
    known = {name: known_input(model, name, given) for name, given in inputs.items()}
    types = types_of_inputs(model, dims, known)
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
