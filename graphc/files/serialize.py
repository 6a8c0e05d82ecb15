"""Save and load: one file with graph, options of compile(), parameters and optimizer state.

A file is text and plain arrays (see container.py), so reading one runs no code of its author's.
Net, Plan and Executor are pickled as the same bytes.  A checkpoint is such a file with the progress
of a training run beside the model, under the same checksum; `load` reads it as any model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.base.errors import GraphError
from graphc.base.loc import warn
from graphc.compiler.options import CompileOptions
from graphc.compiler.plan import Plan
from graphc.declare.net import Net
from graphc.declare.optim.optimizer import Optimizer
from graphc.declare.optim.rule import UpdateRule
from graphc.features.precision.option import PrecisionChoice
from graphc.files.container import pack, read_file, single
from graphc.files.disk import write_file
from graphc.files.graph_file import graph_file, tensors_named, user_ops
from graphc.files.model_file import (
    FORMAT,
    HINT,
    RUN,
    STATE,
    Model,
    check_saved,
    damage,
    is_onnx,
    optimizer_text,
)
from graphc.ir.op import Array, Op
from graphc.runtime.distributed.agreement import on_all_ranks
from graphc.runtime.distributed.communicator import Communicator, Solo
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from passes import DEFAULT


def save(path: str | Path, ex: Executor | Population) -> Path:
    """Write an executor or a population to a file; if that fails, an old file stays as it was.

    The file holds the declared graph, the options of `compile`, `ex.state.columns`, and every array
    of the state, so that training continues as if it had not been interrupted.  Your own passes
    are left out, with a warning.

    Parameters
    ----------
    path
        The path of the file; any suffix but `.onnx`.
    ex
        The executor, or the population.

    Returns
    -------
    Path
        The path of the file.

    Raises
    ------
    GraphError
        If `ex` is neither, if the path is that of an ONNX model, or if text cannot hold an
        attribute of an op.
    StateError
        If a step failed half-way.
    ModelFileError
        If the file cannot be written.

    Examples
    --------
    >>> net = gc.Net("one")
    >>> _ = net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    >>> path = gc.save("one.graphc", gc.Executor(gc.compile(net, batch=8)))
    >>> gc.load(path).plan.batch
    8
    """
    check_saved(ex)
    if is_onnx(path):
        raise GraphError(
            f"save writes graphc's own files, {path} is the name of an ONNX model",
            hint="gc.onnx.save(ex, path) writes an ONNX model",
        )
    write_model(path, ex)
    return Path(path)


def write_model(
    path: str | Path,
    ex: Executor | Population,
    metadata: Mapping[str, str] | None = None,
    tensors: Mapping[str, Array] | None = None,
) -> None:
    """Write an executor or population with more text and arrays, all or nothing.

    Of the ranks that share a population, the first writes, and the others wait for it.
    """
    pieces = _pieces(ex, metadata, tensors)
    ranks = ex.ranks if isinstance(ex, Population) else Solo()
    on_all_ranks(ranks, lambda: None if ranks.rank else write_file(path, pieces))


def load(
    path: str | Path,
    *,
    batch: int | None = None,
    optimizer: Optimizer | None = None,
    precision: PrecisionChoice = None,
    ops: Sequence[type[Op]] = (),
    work: float | None = None,
    communicator: Communicator | None = None,
) -> Any:
    """Return a saved executor or population, compiled anew.

    Parameters
    ----------
    path
        The path that `gc.save` was given.
    batch
        The number of rows of the plan; as saved by default.
    optimizer
        An optimizer instead of the saved one.  If both are of the same class, slots and counters
        are kept; otherwise they have their initial values.
    precision
        The precision of products, as `gc.compile` takes it; as saved by default, float32 if {}.
    ops
        The classes of your own ops in the net.
    work
        A factor for the work that reading the file may take; see docs/files.md.
    communicator
        The ranks that share the members of a population, whatever their number before.

    Returns
    -------
    Executor or Population
        What was saved, with its state.

    Raises
    ------
    ModelFileError
        If the file is damaged or of another format, uses an op that is not in `ops`, or takes more
        work than allowed.
    GraphError
        If an argument does not fit.

    Examples
    --------
    >>> net = gc.Net("one")
    >>> _ = net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    >>> path = gc.save("one.graphc", gc.Executor(gc.compile(net, batch=8)))
    >>> gc.load(path, batch=32).plan.batch
    32
    """
    model = _read(path, ops)
    if model.kind not in ("executor", "population"):
        raise model.error(f"it holds a {model.kind}, not an executor", HINT)
    if model.kind == "executor" and communicator is not None:
        raise GraphError(
            f"load: {path} holds an executor, and ranks share the members of a population",
            hint="gc.Executor(plan, communicator=...) and then ex.state = gc.load(path).state",
        )
    with model.budget(work):
        plan = model.plan(model.graph(ops), batch, optimizer, precision)
        if model.kind == "executor":
            return model.executor(plan, optimizer)
        return model.population(plan, optimizer, communicator)


def load_executor(
    path: str | Path,
    *,
    batch: int | None = None,
    optimizer: Optimizer | None = None,
    ops: Sequence[type[Op]] = (),
) -> Executor:
    """Return a saved executor as `load` does; raise ModelFileError for a population."""
    model = _read(path, ops)
    if model.kind == "population":
        hint = "choose a member: gc.save(path, gc.load(population)[0])"
        raise model.error("it holds a population, not an executor", hint)
    found: Executor = load(path, batch=batch, optimizer=optimizer, ops=ops)
    return found


def _read(path: str | Path, ops: Sequence[type[Op]]) -> Model:
    """Read a model file; raise ModelFileError if it is damaged."""
    _check_ops(ops)
    return Model.read(read_file(path, "give the path that gc.save was given"), str(path))


def to_bytes(thing: Net | Plan | Executor | Population) -> bytes:
    """Return the bytes of a model file; those of a net or plan hold no state."""
    return b"".join(_pieces(thing))


def from_bytes(
    data: bytes, ops: Sequence[type[Op]] = (), work: float | None = None
) -> Net | Plan | Executor | Population:
    """Return what `to_bytes` was given; raise ModelFileError if the bytes are damaged."""
    model = Model.read(data, "the bytes of the model")
    with model.budget(work):
        graph = model.graph(ops)
        if model.kind == "net":
            return model.net(graph)
        plan = model.plan(graph)
        if model.kind == "population":
            return model.population(plan)
        return plan if model.kind == "plan" else model.executor(plan)


def pickled(thing: Net | Plan | Executor | Population) -> tuple[Any, ...]:
    """Return the function and the arguments with which pickle rebuilds one of these."""
    graph = thing.graph() if isinstance(thing, Net) else _plan_of(thing).declared
    # Whoever unpickles trusts the bytes already: the work has no limit.
    return from_bytes, (to_bytes(thing), user_ops(graph), math.inf)


def _plan_of(thing: Plan | Executor | Population) -> Plan:
    return thing if isinstance(thing, Plan) else thing.plan


def _pieces(
    thing: Net | Plan | Executor | Population,
    more: Mapping[str, str] | None = None,
    arrays: Mapping[str, Array] | None = None,
) -> list[bytes | memoryview]:
    """Return the bytes of a model file, in pieces."""
    tensors: dict[str, Array] = dict(arrays or {})
    if isinstance(thing, Net):
        file = graph_file(thing.graph())
        model: dict[str, Any] = {"kind": "net", "dtype": thing.dtype}
    else:
        plan = _plan_of(thing)
        file = graph_file(plan.declared)
        model = {"kind": "plan", "plan": _choices(plan.options)}
    if isinstance(thing, (Executor, Population)):
        tensors.update({STATE + name: array for name, array in thing.snapshot().items()})
        if isinstance(thing, Executor):
            model.update(kind="executor", seed=thing.state.seed)
        else:
            model.update(kind="population", seeds=thing.seeds)
        columns = thing.columns if isinstance(thing, Population) else thing.state.columns
        if columns is not None:
            more = {**columns.metadata(), **(more or {})}
    model.update(file.notes)
    metadata = {"format": f"graphc {FORMAT}", "graph": file.text, "model": json.dumps(model)}
    return pack({**metadata, **(more or {})}, {**tensors, **file.tensors})


def _choices(options: CompileOptions) -> dict[str, Any]:
    """Return the options of compile(), for JSON; warn about functions of the user's own."""
    own, used = DEFAULT.names, options.passes.names
    foreign = [name for name in dict.fromkeys(used) if name not in own]
    if foreign:
        warn(
            f"passes of your own are not saved: {', '.join(foreign)}; a loaded model is "
            "compiled without them"
        )
    for option in options.own:
        warn(f"the {option} of your own is not saved; a loaded model is compiled with graphc's")
    trained = [_rule(rule) for rule in options.rules]
    alone = options.sharding and options.sharding.alone
    return {
        "batch": options.step_rows,
        "shards": alone and alone.shards,
        "sync_batchnorm": bool(alone and alone.sync_batchnorm),
        "wrt": options.wrt,
        "required": options.required,
        "all_outputs": options.all_outputs,
        "backend": options.backend,
        "threads": options.threads,
        "budget": options.budget,
        "contract": options.contract,
        "precision": dict(options.precision),
        "optimizer": trained[0]["optimizer"] if len(trained) == 1 else None,
        "updates": trained if len(trained) > 1 else [],
        "without": [name for name in dict.fromkeys(own) if name not in used],
    }


def _rule(rule: UpdateRule) -> dict[str, Any]:
    """Return an update rule, for JSON."""
    return {"losses": rule.losses, "wrt": rule.wrt, "optimizer": optimizer_text(rule.optimizer)}


def _check_ops(ops: Sequence[type[Op]]) -> None:
    for cls in ops:
        if not (isinstance(cls, type) and issubclass(cls, Op)):
            raise GraphError(
                f"ops holds {cls!r}, not the class of an op", hint="gc.load(path, ops=[MyOp])"
            )


@dataclass(frozen=True)
class CheckpointFile:
    """A model, its state, and the progress of a run: notes for JSON, and arrays."""

    model: Model
    state: Mapping[str, Array]
    notes: dict[str, Any]
    arrays: dict[str, Array]


def write_checkpoint(
    path: Path, ex: Executor | Population, notes: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write a model and a run's notes, all or nothing; raise ModelFileError if that fails."""
    tensors = {f"{RUN}/{name}": array for name, array in arrays.items()}
    write_model(path, ex, {RUN: json.dumps(notes)}, tensors)


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read a checkpoint; raise ModelFileError if it is damaged or of another version."""
    model = Model.read(read_file(path), str(path), "checkpoint")
    if model.run is None:
        raise model.error("it is a model, but not a checkpoint of this version of graphc", HINT)
    with damage(model, "a checkpoint"):
        notes = json.loads(model.run, object_pairs_hook=single)
    state, arrays = (tensors_named(model.tensors, prefix) for prefix in (STATE, f"{RUN}/"))
    return CheckpointFile(model, state, notes, arrays)
