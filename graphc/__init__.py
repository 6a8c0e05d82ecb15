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
    StateError,
)
from graphc.base.import_paths import answer_former_paths, own_passes
from graphc.base.other_names import no_attribute
from graphc.declare import tensor_functions
from graphc.declare.net import Net, mlp
from graphc.declare.schedules import Cosine, Step, WarmUp
from graphc.declare.tensor_functions import *  # noqa: F403
from graphc.ir.build import Value, apply
from graphc.ir.graph import Graph, Node
from graphc.ir.init import Constant, Glorot, He, Normal, Ones, Orthogonal, Uniform, Zeros
from graphc.ir.op import Layer, Op
from graphc.ir.tensor_type import N, TensorType
from graphc.ops.activations.exponential import elu, selu
from graphc.ops.activations.gated import gelu, mish, silu
from graphc.ops.activations.piecewise import hard_sigmoid, hard_swish, leaky_relu, prelu
from graphc.ops.activations.softsign import softsign
from graphc.ops.affine import affine
from graphc.ops.attention import attention, multi_head_attention
from graphc.ops.concat import concat
from graphc.ops.conv_layer import conv, conv_transpose
from graphc.ops.conv_parameters import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
)
from graphc.ops.dropout import dropout
from graphc.ops.elementwise import add, div, mul, neg, power, sub
from graphc.ops.functions import abs_ as abs
from graphc.ops.functions import exp, log, log_softmax, sigmoid, sign, softmax, sqrt, tanh
from graphc.ops.gradient import grad
from graphc.ops.group_norm import groupnorm, instancenorm
from graphc.ops.index import argmax, one_hot, pick
from graphc.ops.linalg import matmul
from graphc.ops.losses.cosine import cosine_loss, cosine_similarity
from graphc.ops.losses.divergence import kl_loss
from graphc.ops.losses.margin import hinge_loss, svm_loss
from graphc.ops.losses.nll import nll_loss
from graphc.ops.losses.regression import (
    huber_loss,
    log_cosh_loss,
    mae_loss,
    mse_loss,
    poisson_loss,
)
from graphc.ops.losses.sigmoid import sigmoid_loss
from graphc.ops.losses.softmax import softmax_loss
from graphc.ops.metrics import accuracy, mean_absolute_error
from graphc.ops.norm import batchnorm
from graphc.ops.pad import pad
from graphc.ops.pool_layer import (
    adaptive_avg_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    max_pool,
)
from graphc.ops.positions import learned_positions, rotary_positions, sinusoidal_positions
from graphc.ops.recurrent import gru, lstm, rnn
from graphc.ops.recurrent_cells import gru_cell, lstm_cell, rnn_cell
from graphc.ops.reduce import broadcast_to, mean
from graphc.ops.reduce import max_ as max
from graphc.ops.reduce import sum_ as sum
from graphc.ops.row_norm import layernorm, rmsnorm
from graphc.ops.select import (
    clip,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    maximum,
    minimum,
    not_equal,
    relu,
    where,
)
from graphc.ops.shape import cast, flatten, reshape, stop_gradient, transpose
from graphc.ops.smooth import erf, softplus
from graphc.ops.standardize import standardize

if TYPE_CHECKING:
    import passes
    from graphc import layers, onnx
    from graphc.check.check_layer import check_layer
    from graphc.check.check_op import check_op
    from graphc.check.grad_check import grad_check
    from graphc.compiler.compile import compile as compile
    from graphc.compiler.plan import Plan as Plan
    from graphc.declare import optim as optim
    from graphc.declare.optim import (
        SGD,
        Adadelta,
        Adagrad,
        Adam,
        Adamax,
        AdamW,
        Group,
        Lion,
        NAdam,
        RMSprop,
    )
    from graphc.files.serialize import load, save
    from graphc.files.torch_state import load_torch_state, save_torch_state
    from graphc.runtime.executor import Executor as Executor
    from graphc.runtime.freeze import freeze as freeze
    from graphc.runtime.state import State as State
    from graphc.train import (
        Callback,
        Checkpoints,
        CsvLog,
        EarlyStopping,
        Epoch,
        History,
        TensorBoardLog,
        fit_standardize,
    )
    from graphc.train.fit import fit
    from graphc.train.replay import Replay, RunDifference, compare_runs, replay
    from graphc.view import plots

_LAZY = {
    "Executor": "graphc.runtime.executor",
    "Plan": "graphc.compiler.plan",
    "State": "graphc.runtime.state",
    "compile": "graphc.compiler.compile",
    "freeze": "graphc.runtime.freeze",
    "SGD": "graphc.declare.optim",
    "Adadelta": "graphc.declare.optim",
    "Adagrad": "graphc.declare.optim",
    "Adam": "graphc.declare.optim",
    "AdamW": "graphc.declare.optim",
    "Adamax": "graphc.declare.optim",
    "Group": "graphc.declare.optim",
    "Lion": "graphc.declare.optim",
    "NAdam": "graphc.declare.optim",
    "RMSprop": "graphc.declare.optim",
    "layers": "graphc.layers",
    "onnx": "graphc.onnx",
    "plots": "graphc.plots",
    "optim": "graphc.optim",
    "check_layer": "graphc.check.check_layer",
    "check_op": "graphc.check.check_op",
    "grad_check": "graphc.check.grad_check",
    "load": "graphc.files.serialize",
    "save": "graphc.files.serialize",
    "load_torch_state": "graphc.files.torch_state",
    "save_torch_state": "graphc.files.torch_state",
    "Callback": "graphc.train",
    "Checkpoints": "graphc.train",
    "CsvLog": "graphc.train",
    "EarlyStopping": "graphc.train",
    "Epoch": "graphc.train",
    "History": "graphc.train",
    "TensorBoardLog": "graphc.train",
    "fit": "graphc.train",
    "fit_standardize": "graphc.train",
    "RunDifference": "graphc.train.replay",
    "Replay": "graphc.train.replay",
    "compare_runs": "graphc.train.replay",
    "replay": "graphc.train.replay",
}
"""From names that are imported at first use to their modules."""


answer_former_paths()


def __getattr__(name: str) -> Any:
    if name == "passes":
        return own_passes()
    if name not in _LAZY:
        raise no_attribute(name, __all__)
    module = import_module(_LAZY[name])
    value = module if _LAZY[name] == f"graphc.{name}" else getattr(module, name)
    globals()[name] = value
    return value


__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
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
    "Group",
    "He",
    "History",
    "Layer",
    "Lion",
    "ModelFileError",
    "N",
    "NAdam",
    "Net",
    "Node",
    "Normal",
    "NotFiniteError",
    "Ones",
    "Op",
    "Orthogonal",
    "OutOfMemoryError",
    "Plan",
    "RMSprop",
    "RankError",
    "RendererMissing",
    "Replay",
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
    "abs",
    "accuracy",
    "adaptive_avg_pool",
    "add",
    "affine",
    "apply",
    "argmax",
    "attention",
    "avg_pool",
    "batchnorm",
    "broadcast_to",
    "cast",
    "check_layer",
    "check_op",
    "clip",
    "compare_runs",
    "compile",
    "concat",
    "conv",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "cosine_loss",
    "cosine_similarity",
    "div",
    "dropout",
    "elu",
    "equal",
    "erf",
    "exp",
    "fit",
    "fit_standardize",
    "flatten",
    "freeze",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "grad",
    "grad_check",
    "greater",
    "greater_equal",
    "groupnorm",
    "gru",
    "gru_cell",
    "hard_sigmoid",
    "hard_swish",
    "hinge_loss",
    "huber_loss",
    "instancenorm",
    "kl_loss",
    "layernorm",
    "layers",
    "leaky_relu",
    "learned_positions",
    "less",
    "less_equal",
    "load",
    "load_torch_state",
    "log",
    "log_cosh_loss",
    "log_softmax",
    "lstm",
    "lstm_cell",
    "mae_loss",
    "matmul",
    "max",
    "max_pool",
    "maximum",
    "mean",
    "mean_absolute_error",
    "minimum",
    "mish",
    "mlp",
    "mse_loss",
    "mul",
    "multi_head_attention",
    "neg",
    "nll_loss",
    "not_equal",
    "one_hot",
    "onnx",
    "pad",
    "passes",
    "pick",
    "plots",
    "poisson_loss",
    "power",
    "prelu",
    "relu",
    "replay",
    "reshape",
    "rmsnorm",
    "rnn",
    "rnn_cell",
    "rotary_positions",
    "save",
    "save_torch_state",
    "selu",
    "sigmoid",
    "sigmoid_loss",
    "sign",
    "silu",
    "sinusoidal_positions",
    "softmax",
    "softmax_loss",
    "softplus",
    "softsign",
    "sqrt",
    "standardize",
    "stop_gradient",
    "sub",
    "sum",
    "svm_loss",
    "tanh",
    "transpose",
    "where",
]
__all__ += tensor_functions.__all__
