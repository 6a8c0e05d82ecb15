"""graphc: compile neural networks, as static graphs, for the CPU."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphc.base import __version__ as __version__
from graphc.base.errors import (
    BudgetError,
    DataError,
    FeedError,
    GraphError,
    ModelFileError,
    NotFiniteError,
    OutOfMemoryError,
    RankError,
    RendererMissing,
    RuleError,
    StateError,
)
from graphc.base.other_names import no_attribute
from graphc.base.own_passes import own_passes
from graphc.declare.mlp import mlp
from graphc.declare.net import Net
from graphc.declare.optim import every_kind
from graphc.declare.schedules import Cosine, Step, WarmUp
from graphc.declare.track import track
from graphc.ir.build import Value, apply
from graphc.ir.graph import Graph, Node
from graphc.ir.init import Constant, Glorot, He, Normal, Ones, Orthogonal, Uniform, Zeros
from graphc.ir.op import Layer, Op
from graphc.ir.tensor_type import N, TensorType
from graphc.ops import FUNCTIONS

if TYPE_CHECKING:
    import passes
    from graphc import check as check
    from graphc import layers, onnx
    from graphc.check.check_layer import check_layer
    from graphc.check.check_op import check_op
    from graphc.check.check_pass import check_pass
    from graphc.check.grad_check import grad_check
    from graphc.check.quantization import compare_quantized as compare_quantized
    from graphc.compiler.compile import compile as compile
    from graphc.compiler.plan import Plan as Plan
    from graphc.declare import optim as optim
    from graphc.declare.optim.adam import *
    from graphc.declare.optim.adaptive import *
    from graphc.declare.optim.optimizer import *
    from graphc.declare.optim.rule import *
    from graphc.declare.optim.sgd import *
    from graphc.files.code.export import export_c, export_object
    from graphc.files.serialize import load, save
    from graphc.files.torch_state import load_torch_state, save_torch_state
    from graphc.ops.activations import *
    from graphc.ops.argmax import *
    from graphc.ops.arithmetic import *
    from graphc.ops.arrange import *
    from graphc.ops.attention import *
    from graphc.ops.autodiff import *
    from graphc.ops.conv_layer import *
    from graphc.ops.conv_parameters import *
    from graphc.ops.cumulative import *
    from graphc.ops.diagonals import *
    from graphc.ops.dropout import *
    from graphc.ops.elementwise import *
    from graphc.ops.functions import *
    from graphc.ops.gather import *
    from graphc.ops.gaussian import *
    from graphc.ops.index import *
    from graphc.ops.index_tuples import *
    from graphc.ops.linalg import *
    from graphc.ops.logic import *
    from graphc.ops.loops.layer import *
    from graphc.ops.loops.lengths import *
    from graphc.ops.loops.recurrent import *
    from graphc.ops.loops.recurrent_cells import *
    from graphc.ops.losses.classes import *
    from graphc.ops.losses.elements import *
    from graphc.ops.losses.labels import *
    from graphc.ops.losses.metrics import *
    from graphc.ops.losses.rows import *
    from graphc.ops.norm import *
    from graphc.ops.pad import *
    from graphc.ops.pool_layer import *
    from graphc.ops.random_numbers import *
    from graphc.ops.reduce import *
    from graphc.ops.resize import *
    from graphc.ops.row_norm import *
    from graphc.ops.scatter import *
    from graphc.ops.select import *
    from graphc.ops.shape import *
    from graphc.ops.slicing import *
    from graphc.ops.sorting import *
    from graphc.ops.sums import *
    from graphc.ops.trigonometry import *
    from graphc.runtime.executor import Executor as Executor
    from graphc.runtime.freeze import freeze as freeze
    from graphc.runtime.members.population import Population as Population
    from graphc.runtime.quantize import quantize as quantize
    from graphc.runtime.replay_buffer import ReplayBuffer as ReplayBuffer
    from graphc.runtime.state import State as State
    from graphc.train import (
        Callback,
        Checkpoints,
        CsvLog,
        EarlyStopping,
        Epoch,
        Histories,
        History,
        TensorBoardLog,
        fit_standardize,
    )
    from graphc.train.fit import fit
    from graphc.train.replay import Replay, RunDifference, compare_runs, replay
    from graphc.view import plots

    abs, max, min, round, sum = abs_, max_, min_, round_, sum_

_FIRST_USE = {
    "graphc.compiler.compile": ("compile",),
    "graphc.compiler.plan": ("Plan",),
    "graphc.runtime.executor": ("Executor",),
    "graphc.runtime.freeze": ("freeze",),
    "graphc.runtime.members.population": ("Population",),
    "graphc.runtime.quantize": ("quantize",),
    "graphc.runtime.replay_buffer": ("ReplayBuffer",),
    "graphc.runtime.state": ("State",),
    "graphc.layers": ("layers",),
    "graphc.onnx": ("onnx",),
    "graphc.view.plots": ("plots",),
    "graphc.declare.optim": ("optim",),
    "graphc.check.check_layer": ("check_layer",),
    "graphc.check": ("check",),
    "graphc.check.check_op": ("check_op",),
    "graphc.check.check_pass": ("check_pass",),
    "graphc.check.quantization": ("compare_quantized",),
    "graphc.check.grad_check": ("grad_check",),
    "graphc.files.code.export": ("export_c", "export_object"),
    "graphc.files.serialize": ("load", "save"),
    "graphc.files.torch_state": ("load_torch_state", "save_torch_state"),
    "graphc.train": (
        *("Callback", "Checkpoints", "CsvLog", "EarlyStopping", "Epoch", "Histories"),
        *("History", "TensorBoardLog", "fit", "fit_standardize"),
    ),
    "graphc.train.replay": ("Replay", "RunDifference", "compare_runs", "replay"),
}
"""The modules that are imported at first use, and their names here; optimizers are such, too."""
_MODULES = ("check", "layers", "onnx", "optim", "plots")
"""The names that are modules themselves."""
_MODULE_OF = {name: module for module, names in _FIRST_USE.items() for name in names}

globals().update(FUNCTIONS)


def __getattr__(name: str) -> Any:
    if name == "passes":
        return own_passes()
    if name == "__all__":
        return sorted({*_NAMES, *every_kind()})
    if name in _MODULE_OF:
        module = import_module(_MODULE_OF[name])
        value = module if name in _MODULES else getattr(module, name)
    elif name in every_kind():
        value = every_kind()[name]
    else:
        raise no_attribute(name, __getattr__("__all__"))
    globals()[name] = value
    return value


__all__ = [
    "BudgetError",
    "Callback",
    "Checkpoints",
    "Constant",
    "Cosine",
    "CsvLog",
    "DataError",
    "EarlyStopping",
    "Epoch",
    "Executor",
    "FeedError",
    "Glorot",
    "Graph",
    "GraphError",
    "He",
    "Histories",
    "History",
    "Layer",
    "ModelFileError",
    "N",
    "Net",
    "Node",
    "Normal",
    "NotFiniteError",
    "Ones",
    "Op",
    "Orthogonal",
    "OutOfMemoryError",
    "Plan",
    "Population",
    "RankError",
    "RendererMissing",
    "Replay",
    "RuleError",
    "RunDifference",
    "State",
    "StateError",
    "Step",
    "TensorBoardLog",
    "TensorType",
    "Uniform",
    "Value",
    "WarmUp",
    "Zeros",
    "apply",
    "check_layer",
    "check_op",
    "check_pass",
    "compare_quantized",
    "compare_runs",
    "compile",
    "export_c",
    "export_object",
    "fit",
    "fit_standardize",
    "freeze",
    "grad_check",
    "layers",
    "load",
    "load_torch_state",
    "mlp",
    "onnx",
    "passes",
    "plots",
    "quantize",
    "replay",
    "save",
    "save_torch_state",
    "track",
]
__all__ += FUNCTIONS
_NAMES = __all__
if not TYPE_CHECKING:
    del __all__  # the optimizers belong to it, and are imported when it is first asked for
