"""`gc.onnx.load`: a trainable net of an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import GraphError
from graphc.loc import caller_loc
from graphc.net import Net
from graphc.onnx.importing import LOSSES, as_net, free_inputs, import_model, metadata_of
from graphc.onnx.inputs import types_of_inputs
from graphc.onnx.known import NeedsInputs
from graphc.onnx.read import read_model

if TYPE_CHECKING:
    from onnx import ModelProto

    from graphc.tensor_type import Dim


def load(
    source: str | Path | ModelProto,
    *,
    dims: Mapping[str, Dim] | None = None,
    inputs: Mapping[str, Any] | None = None,
    external_data: bool = False,
) -> Net:
    """A net of the model: a path, or an `onnx.ModelProto`.

    Initializers of floats become parameters by their names, with their numbers as initial values.
    BatchNormalization and Dropout become layers, which mean one thing in inference and another
    in training.  What the model computes of shapes alone is computed now.

    The first dimension of inputs stays open where it has a name or none: it is `gc.N`.  `dims`
    gives sizes to dimensions by their names: `{"sequence": 128}`; `{"batch": gc.N}` says which is
    the batch.  `inputs` gives inputs on which shapes depend their arrays, once and for all.
    Data of tensors in other files are read only with `external_data=True`, and only from the
    model's own folder.

    Raises ModelFileError for a file that is no model or does not fit its own description,
    GraphError, naming the node, for what graphc has no meaning for.
    """
    model, file = read_model(source, external_data)
    known = {name: np.asarray(array) for name, array in (inputs or {}).items()}
    free = free_inputs(model)
    for name in known:
        if name not in free:
            raise GraphError(
                f"the model has no input {name!r}",
                loc=caller_loc(),
                hint=f"it has {', '.join(free)}" if free else "it has none",
            )
    types = types_of_inputs(model, dims or {}, known)
    try:
        imported = import_model(model, file, types, known, as_written=False)
    except NeedsInputs as error:
        names = " and ".join(map(repr, error.names))
        raise GraphError(
            f"shapes in {file} depend on the numbers of input {names}",
            loc=caller_loc(),
            hint=f"say them now: load(path, inputs={{{error.names[0]!r}: ...}})",
        ) from None
    return as_net(imported, metadata_of(model, LOSSES))
