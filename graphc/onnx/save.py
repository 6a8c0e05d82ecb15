"""`gc.onnx.save`: an ONNX model of a net, with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphc.base.errors import GraphError, ModelFileError
from graphc.base.loc import caller_loc
from graphc.declare.net import Net
from graphc.declare.selection import select_outputs
from graphc.files.writing import write_file
from graphc.ir.plan import Plan
from graphc.onnx.export.exporter import export
from graphc.onnx.read import LARGEST_FILE, path_of
from graphc.runtime.executor import Executor
from graphc.runtime.reference import initial_state

if TYPE_CHECKING:
    from onnx import ModelProto


SAVE = "the net, plan or executor, then the path: gc.onnx.save(ex, 'model.onnx')"


def save(
    thing: Net | Plan | Executor, path: str | Path, *, train: bool = False, losses: bool = True
) -> Path:
    """Write an ONNX model, all or nothing; the same net and weights give the same bytes.

    An executor is written with its weights, a net or plan with its initial ones.  The model has all
    outputs, losses among them, the inputs that they need, and the batch as the dimension `N`;
    `losses=False` omits the losses, and so the inputs that only they need.  The model is for
    inference; with `train` it is the forward part of a training step: batch statistics, whose next
    running values become additional outputs, and dropout.  An op that ONNX does not have becomes a
    function of the domain `graphc`, whose body consists of ONNX's ops; `load` makes the same layer
    from it.

    Raise GraphError for an op of your own, or a gradient inside the net, ModelFileError when the
    file cannot be written.
    """
    path = path_of("save", path, SAVE)
    model = to_proto(thing, train=train, losses=losses)
    data = model.SerializeToString(deterministic=True)
    if len(data) >= LARGEST_FILE:
        raise ModelFileError("the model is larger than the 2 GB of a protocol buffer")
    return write_file(path, [data])


def to_proto(
    thing: Net | Plan | Executor, *, train: bool = False, losses: bool = True
) -> ModelProto:
    """Return the model that `save` writes, as an `onnx.ModelProto`."""
    import onnx

    if isinstance(thing, Executor):
        graph, state = thing.plan.declared, dict(thing.state)
        state = initial_state(graph, thing.state.seed) | state
    elif isinstance(thing, (Net, Plan)):
        graph = thing.graph() if isinstance(thing, Net) else thing.declared
        state = initial_state(graph, 0)
    else:
        raise GraphError(
            f"save takes a net, a plan or an executor, not {type(thing).__name__}",
            loc=caller_loc(),
            hint=SAVE,
        )
    if not losses:
        graph = select_outputs(graph, [], None)
    if not graph.outputs:
        raise GraphError(f"net {graph.name!r} has no output to export", loc=caller_loc())
    model = export(graph, state, train)
    onnx.checker.check_model(model, full_check=True)
    return model
