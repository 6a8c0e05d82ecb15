"""The model that MODEL on the command line names, its feeds and its metrics."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import GraphError
from graphc.base.loc import users_frames
from graphc.base.own_passes import own_passes
from graphc.cli.arguments import optimizer
from graphc.cli.data import Feeds, index_bounds
from graphc.compiler.compile import compile
from graphc.compiler.plan import Plan
from graphc.declare.net import Net
from graphc.files.serialize import load_executor
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import TensorType, shape_at
from graphc.runtime.classes import classes_of, predicted_classes
from graphc.runtime.columns import Columns
from graphc.runtime.executor import Executor
from passes.contract import check_is_pass, name_of
from passes.pipeline import PassList

T = TypeVar("T")

ROWS = 6
"""The number of rows that a net is checked on."""
HINT = "MODEL is file.py:function, a model that gc.save wrote, or an .onnx file"


class UsersError(Exception):
    """An exception of the user's own code; its text is the traceback from their file on."""


@dataclass(frozen=True)
class Model:
    """A net, and the executor that was saved if it comes from a model file of graphc.

    `known` are the names of the columns that a net was declared for.
    """

    net: Net
    saved: Executor | None = None
    known: Columns | None = None

    @property
    def graph(self) -> Graph:
        """The declared graph."""
        return self.net.graph()

    @property
    def columns(self) -> Columns | None:
        """The names of the columns that the model was trained on, or is for, if it has some."""
        return self.known if self.saved is None else self.saved.state.columns


def load_model(source: str) -> Model:
    """Return the model that MODEL names; raise GraphError or UsersError if there is none."""
    path, colon, function = source.rpartition(":")
    if colon and path.endswith(".py"):
        return Model(_net(Path(path), function))
    if source.endswith(".py"):
        raise GraphError(
            f"{source} is a Python file: also name the function that returns the net",
            hint=f"{source}:net",
        )
    _check_file(Path(source))
    if Path(source).suffix.lower() in (".csv", ".npy", ".npz"):
        raise GraphError(f"{source} is data, not a model", hint=HINT)
    if is_onnx(source):
        from graphc.onnx import load as load_onnx

        return Model(load_onnx(source))
    saved = load_executor(source)
    return Model(Net.of(saved.plan.declared), saved)


def is_onnx(source: str) -> bool:
    """Return whether MODEL is an ONNX file."""
    return Path(source).suffix.lower() == ".onnx"


def check_has_loss(model: Model) -> None:
    """Raise GraphError for a net that cannot be trained."""
    if not model.graph.losses:
        raise GraphError(
            f"net {model.net.name!r} has no loss to train by",
            hint='declare one: net.loss("loss", gc.softmax_loss(scores, y))',
        )


def load_passes(source: str) -> PassList:
    """Return the pass list that FILE:NAME names; raise GraphError or UsersError if it cannot.

    A single pass, or a tuple of them, is added to the default list.
    """
    path, _, name = source.rpartition(":")
    if not path.endswith(".py") or not name:
        raise GraphError(
            f"{source!r} does not name a list of passes",
            hint="file.py:name, of a gc.passes list or of a pass",
        )
    module = _module(Path(path), "--passes takes file.py:name, of a gc.passes list or of a pass")
    found = getattr(module, name, None)
    if found is None:
        raise GraphError(
            f"{path} has no list of passes {name!r}",
            hint=f'{name} = gc.passes.after("cse", my_pass), or a pass of that name',
        )
    passes = own_passes()
    if isinstance(found, PassList):
        missing = passes.REQUIRED.difference(found.names)
        if missing:
            raise GraphError(
                f"{source}: a plan needs the passes {', '.join(sorted(missing))}",
                hint='begin with the default list: gc.passes.without("cse")',
            )
        return found
    steps = found if isinstance(found, (tuple, list)) else (found,)
    for step in steps:
        check_is_pass(step, f"{source}: ")
    default = passes.DEFAULT.entries
    last = max(i for i, entry in enumerate(default) if name_of(entry) == "dead_code")
    return PassList((*default[:last], *steps, *default[last:]), passes.REQUIRED)


def _net(path: Path, function: str) -> Net:
    module = _module(path)
    make = getattr(module, function, None)
    if not callable(make):
        raise GraphError(f"{path} has no function {function!r}", hint=_functions(module))
    if _needs_arguments(make):
        raise GraphError(
            f"{path}:{function} takes arguments, a model's function takes none",
            hint="give them default values",
        )
    net = of_user(make)
    if not isinstance(net, Net):
        raise GraphError(
            f"{path}:{function} returns {type(net).__name__}, not a gc.Net",
            hint="end the function with: return net",
        )
    return net


def _check_file(path: Path, hint: str = HINT) -> None:
    if not path.is_file():
        other = "is not a regular file" if path.exists() else "does not exist"
        what = "is a folder" if path.is_dir() else other
        raise GraphError(f"{path} {what}", hint=hint)


def _module(path: Path, hint: str = HINT) -> ModuleType:
    """Return the file as a module; as for a script, its folder comes first on the import path."""
    _check_file(path, hint)
    name = f"graphc_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look for the module of a class there.
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    of_user(partial(spec.loader.exec_module, module))
    return module


def of_user(call: Callable[[], T]) -> T:
    """Return the result of a call; raise UsersError for an exception of the user's code in it."""
    try:
        return call()
    except GraphError:
        raise
    except Exception as error:
        frames = users_frames(error.__traceback__)
        if frames is None and not isinstance(error, SyntaxError):  # that is of a whole file
            raise
        text = traceback.format_exception(error.with_traceback(frames))
        raise UsersError("".join(text)) from None


def _needs_arguments(make: Callable[..., Any]) -> bool:
    try:
        inspect.signature(make).bind()
    except TypeError:
        return True
    return False


def _functions(module: ModuleType) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    return f"it has {', '.join(own)}" if own else "it has no functions"


def random_feeds(plan: Plan, rows: int = ROWS) -> dict[str, NDArray[Any]]:
    """Return random arrays for every input of a plan, the same each time; labels are in range."""
    rng = np.random.default_rng(0)
    bounds = index_bounds(plan)
    types = {name: plan.declared[name].type for name in plan.input_names}
    found = {name: _random(rng, type, bounds.get(name, 2), rows) for name, type in types.items()}
    return {name: array for name, array in found.items() if name in plan.data_names}


def compiled(args: argparse.Namespace, graph: Graph, **options: Any) -> Plan:
    """Compile a graph as the command line asks; `options` are added, or replace its options."""
    names = "batch", "backend", "threads", "precision"
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    given["optimizer"] = optimizer(getattr(args, "optimizer", None))
    given["passes"] = options.get("passes") or passes_of(args)
    return of_user(partial(compile, graph, **(given | options)))


def passes_of(args: argparse.Namespace) -> PassList:
    """Return the passes of the option --passes, or the default list."""
    source, default = getattr(args, "passes", None), own_passes().DEFAULT
    found: PassList = load_passes(source) if source else default
    return found


def _random(rng: np.random.Generator, type: TensorType, bound: int, rows: int) -> NDArray[Any]:
    shape = shape_at(type.shape, rows)
    if type.is_float:
        return np.asarray(rng.standard_normal(shape))
    return np.asarray(rng.integers(0, bound, shape)).astype(type.dtype)


def metrics(ex: Executor, feeds: Feeds) -> dict[str, float]:
    """Return the losses by name, and `accuracy` if a loss compares scores with fed labels."""
    found = ex.evaluate(feeds)
    classes = classes_of(ex.plan.declared)
    if classes is not None:
        found["accuracy"] = float(
            np.mean(predicted_classes(ex, feeds, classes) == feeds[classes.labels])
        )
    return found
