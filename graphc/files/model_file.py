"""Reading of model files: content is checked before use, and errors name the file.

A file may also hold the names of a table's columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_args

from graphc.backends.backend import kept_backend
from graphc.base.arguments import plain
from graphc.base.errors import UNFIT, GraphError, ModelFileError, RankError
from graphc.base.work import spend_bytes, spend_elements, work_budget
from graphc.compiler.compile import check_budget
from graphc.compiler.options import CompileOptions
from graphc.compiler.plan import Plan
from graphc.compiler.request import check_losses, check_options
from graphc.compiler.sharding import sharding
from graphc.compiler.sizes import constant_types, region_bytes, state_nodes
from graphc.declare.net import Net
from graphc.declare.optim import Group, Optimizer, every_kind
from graphc.declare.optim.optimizer import Schedule
from graphc.declare.optim.rule import UpdateRule, check_rules
from graphc.features.precision.option import PrecisionChoice, precision_of_layers
from graphc.files.container import parsed, single, unpack
from graphc.files.graph_file import GraphFile, UnknownOp, graph_of, tensors_named
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Op
from graphc.ir.text.graph import value_text
from graphc.ir.text.tokens import Reader
from graphc.runtime.columns import COLUMNS_KEY, PREPARED, Columns
from graphc.runtime.distributed.communicator import Communicator
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from passes import DEFAULT
from passes.set_precision import Precision

FORMAT = 1
"""The version that is written, and the only one that is read."""

COMPILED = 200
"""The most nodes per line of a graph's text: layers and gradients, in all programs."""
LARGEST_PLAN = 1 << 40
"""The largest size in bytes of a plan from a file, unless the user gives its batch."""

STATE = "state/"
"""The prefix of the names of the state's arrays."""
RUN = "run"
"""The key of the notes of a training run, and the start of the names of its arrays."""

HINT = "restore it from a backup, or save the model again"

_TORCH = (
    "weights of PyTorch: safetensors.torch.save_file(module.state_dict(), path), then "
    "gc.load_torch_state(ex, path)"
)
_OTHERS = {
    ".onnx": "an ONNX model is read by gc.onnx.load(path)",
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".safetensors": "weights are read by gc.load_torch_state(ex, path)",
    ".h5": "convert models of Keras to ONNX, then gc.onnx.load(path)",
    ".keras": "convert models of Keras to ONNX, then gc.onnx.load(path)",
}
"""Hints for files of other tools, by their suffixes."""


def columns_of(text: str) -> Columns:
    """Parse the column names of a model file; raise ValueError or RecursionError on failure."""
    found = json.loads(text, object_pairs_hook=single)
    usual = {"features", "label", "classes"}
    if not isinstance(found, dict) or found.keys() - set(PREPARED) != usual:
        raise ValueError("they are not written as graphc writes them")
    features, label, classes = found["features"], found["label"], found["classes"]
    words, gaps = found.get("words", []), found.get("gaps", False)
    if not all(isinstance(names, list) for names in (features, classes, words, *words)):
        raise ValueError("they are not lists")
    if not all(isinstance(name, str) for name in (*features, *classes, label, *chain(*words))):
        raise ValueError("they are not text")
    if not isinstance(gaps, bool):
        raise ValueError("gaps are true or false")
    return Columns(tuple(features), label, tuple(classes), tuple(map(tuple, words)), gaps)


def is_onnx(path: str | Path) -> bool:
    """Return whether a file has the suffix of an ONNX model."""
    return str(path).lower().endswith(".onnx")


def check_executor(call: str, given: object, hint: str) -> None:
    """Raise GraphError for an argument that is not an executor."""
    if not isinstance(given, Executor):
        raise GraphError(f"{call} takes an executor, not {type(given).__name__}", hint=hint)


def check_saved(given: object) -> None:
    """Raise GraphError for what `save` does not write."""
    if not isinstance(given, Population):
        check_executor("save", given, "gc.save(path, ex) with ex = gc.Executor(plan)")


@contextmanager
def damage(model: Model, what: str) -> Iterator[None]:
    """Raise ModelFileError in place of any error that damaged content may cause."""
    try:
        yield
    except (ModelFileError, RankError, UnknownOp):
        raise
    except UNFIT as error:
        text = error.sentence if isinstance(error, GraphError) else str(error) or repr(error)
        raise model.error(f"{what} cannot be made from it: {text}", HINT) from error


@dataclass(frozen=True)
class Model:
    """The content of a model file, of which only the container has been checked."""

    where: str
    text: str
    notes: dict[str, Any]
    tensors: dict[str, Array]
    nbytes: int = 0
    """The number of bytes of the file."""
    columns: str | None = None
    """The names of a table's columns, as JSON, if there are any."""
    run: str | None = None
    """The notes of a training run, as JSON, in a checkpoint."""
    what: str = "model"
    """The kind of file that errors name: model or checkpoint."""

    @classmethod
    def read(cls, data: bytes, where: str, what: str = "model") -> Model:
        """Unpack the container; raise ModelFileError if it is damaged or of another version."""
        model = cls(where, "", {}, {}, what=what)
        try:
            metadata, tensors = unpack(data)
        except ValueError as error:
            raise model.error(str(error), HINT) from None
        written = metadata.get("format", "")
        if written != f"graphc {FORMAT}":
            raise model.error(
                f"it is of format {written!r}, this version reads 'graphc {FORMAT}'",
                "read it with the version of graphc that wrote it, or a newer one",
            )
        with damage(model, "a model"):
            notes = parsed(metadata["model"])
            columns, run = metadata.get(COLUMNS_KEY), metadata.get(RUN)
            return cls(where, metadata["graph"], notes, tensors, len(data), columns, run, what)

    def error(self, sentence: str, hint: str) -> ModelFileError:
        """Return the error for this file, at the user's line."""
        hint = _OTHERS.get(Path(self.where).suffix.lower(), hint)
        return ModelFileError(
            f"{self.where} cannot be read as a {self.what}: {sentence}", hint=hint
        )

    def budget(self, work: float | None) -> AbstractContextManager[None]:
        """Return the work budget for making a net or a plan of the file; see base/work.py."""
        nodes = COMPILED * self.text.count("\n")
        return work_budget(self.where, nbytes=self.nbytes, nodes=nodes, work=work)

    @property
    def kind(self) -> str:
        """The kind of the model: net, plan, executor or population."""
        with damage(self, "a model"):
            kind = str(self.notes["kind"])
            if kind not in ("net", "plan", "executor", "population"):
                raise ValueError(f"it is of the unknown kind {kind[:40]!r}")
            return kind

    def graph(self, ops: Iterable[type[Op]]) -> Graph:
        """Return the declared graph; `ops` are the user's classes."""
        try:
            return self.declared(ops)
        except UnknownOp as error:
            name = error.path.rpartition(".")[2]
            raise self.error(
                f"it uses your op {error.path}", f"pass the class: gc.load(path, ops=[{name}])"
            ) from None

    def declared(self, ops: Iterable[type[Op]]) -> Graph:
        """Return the declared graph; raise UnknownOp if the class of one of its ops is missing."""
        with damage(self, "a graph"):
            return graph_of(GraphFile(self.text, self.notes, self.tensors), ops)

    def net(self, graph: Graph) -> Net:
        """Return a net to which more can be declared."""
        with damage(self, "a net"):
            return Net.of(graph, self.notes["dtype"])

    def plan(
        self,
        graph: Graph,
        batch: int | None = None,
        optimizer: Optimizer | None = None,
        precision: PrecisionChoice = None,
    ) -> Plan:
        """Compile with the saved options, except those given here."""
        batch = plain(batch)
        if batch is not None or optimizer is not None:
            check_options(graph, 1 if batch is None else batch, optimizer)
            check_losses(graph, optimizer)
        if optimizer is not None and len(saved_rules(self)) > 1:
            raise GraphError(
                f"{self.where} has several update rules, which one optimizer cannot replace",
                hint="declare the net again, and compile it with updates=",
            )
        with damage(self, "a plan"):
            options = self._compile_options(graph, self.notes["plan"], optimizer)
            options = options.of_rows(batch or options.rows)
            check_budget(options.budget)
            check_options(graph, options.rows, None, options.threads, options.contract)
        if precision is not None:
            asked = precision, options.passes, options.batch, bool(options.rules), options.backend
            options = replace(options, precision=precision_of_layers(graph, *asked))
        with damage(self, "a plan"):
            plan = options.plan()
        if batch is None:
            self._check_memory(plan)
            spend_bytes(region_bytes(constant_types(plan.programs), plan.batch))
            spend_elements(plan.batch)  # a run computes at least one for each row
        return plan

    def _check_memory(self, plan: Plan) -> None:
        """Raise ModelFileError for a batch that takes more memory than any machine has.

        Arenas are reserved here but not written, so they take no memory yet; constants do.
        """
        if plan.memory.total > LARGEST_PLAN:
            raise self.error(
                f"its batch of {plan.batch:,} rows takes {plan.memory.total:,} bytes",
                "if that is intended, say so: gc.load(path, batch=...)",
            )

    def _compile_options(
        self, graph: Graph, options: Mapping[str, Any], other: Optimizer | None
    ) -> CompileOptions:
        without = [name for name in options["without"] if name in DEFAULT.names]
        wrt, sync = _names(graph, options["wrt"]), bool(options.get("sync_batchnorm"))
        return CompileOptions(
            graph=graph,
            batch=0,
            rows=options["batch"],
            sharding=sharding(options.get("shards"), 1, sync, 2**62, options.get("budget")),
            wrt=wrt,
            required=_names(graph, options["required"]),
            rules=_rules(graph, options, wrt, other),
            passes=DEFAULT.without(*without),
            all_outputs=bool(options["all_outputs"]),
            backend=kept_backend(options["backend"]),
            threads=options["threads"],
            budget=options.get("budget"),
            contract=options.get("contract", "fused"),
            precision=_precision(options.get("precision", {})),
        )

    def executor(self, plan: Plan, optimizer: Optimizer | None = None) -> Executor:
        """Return an executor with the state of the file; `optimizer` replaced the file's."""
        with damage(self, "an executor"):
            found = self._states(plan, optimizer)
            ex = Executor(plan, seed=self.notes["seed"])
            ex.state = found
        ex.state.columns = self._table_columns()
        return ex

    def population(
        self,
        plan: Plan,
        optimizer: Optimizer | None = None,
        communicator: Communicator | None = None,
    ) -> Population:
        """Return a population with the states of the file; `optimizer` replaced the file's."""
        with damage(self, "a population"):
            seeds = self.notes["seeds"]
            found = self._states(plan, optimizer, len(seeds))
            made = Population(plan, seeds=seeds, communicator=communicator)
            made.state = found
        made.columns = self._table_columns()
        return made

    def _states(self, plan: Plan, optimizer: Optimizer | None, *members: int) -> dict[str, Array]:
        """Return the checked arrays of the state, whose first axis is the members if there are."""
        found = tensors_named(self.tensors, STATE)
        needed = dict(plan.state_nodes)
        if optimizer is not None:
            found = _kept(plan, found, optimizer, self.notes["plan"]["optimizer"])
            model = _model_states(plan)
            needed = {k: node for k, node in needed.items() if k in found or k in model}
        _check_state(needed, found, members)
        return found

    def _table_columns(self) -> Columns | None:
        if self.columns is None:
            return None
        with damage(self, "names of columns"):
            return columns_of(self.columns)


def optimizer_text(optimizer: Optimizer) -> str:
    """Return the optimizer as text; raise GraphError if it would be read as another."""
    text = value_text(optimizer)
    if optimizer_of(text) != optimizer:
        raise GraphError(
            f"{text} cannot be saved: it would be read back as something else",
            hint="classes of optimizers and schedules are distinguished by their names",
        )
    return text


def optimizer_of(text: str) -> Optimizer:
    """Return the optimizer of a text; raise ValueError or a similar error for another text."""
    every_kind()
    bases = (Schedule, Group, Optimizer)
    classes = {cls.__name__: cls for base in bases for cls in _descendants(base)}
    reader = Reader(text, classes)
    found = reader.value()
    if reader.kind != "end":
        reader.fail("the end of the optimizer")
    return cast(Optimizer, found)


def _descendants(cls: type[Any]) -> list[type[Any]]:
    children: list[type[Any]] = cls.__subclasses__()
    return [cls, *(deeper for child in children for deeper in _descendants(child))]


def saved_rules(model: Model) -> list[dict[str, Any]]:
    """Return the update rules as they were written; a single one has an optimizer alone."""
    options = model.notes["plan"]
    alone = [] if options["optimizer"] is None else [{"optimizer": options["optimizer"]}]
    return list(options.get("updates", ())) or alone


def _rules(
    graph: Graph, options: Mapping[str, Any], wrt: tuple[str, ...], other: Optimizer | None
) -> tuple[UpdateRule, ...]:
    """Return the update rules of a file, or the one of another optimizer."""
    several = options.get("updates", ())
    text = options["optimizer"]
    if not several:
        optimizer = other if other is not None or text is None else optimizer_of(text)
        return () if optimizer is None else (UpdateRule(graph.losses, wrt, optimizer),)
    rules = tuple(_rule(graph, **each) for each in several)
    check_rules(rules)
    return rules


def _rule(graph: Graph, losses: Sequence[str], wrt: Sequence[str], optimizer: str) -> UpdateRule:
    """Return an update rule of a file; raise KeyError if it does not belong to the graph."""
    unknown = {*losses}.difference(graph.losses)
    if unknown:
        raise KeyError(min(unknown))
    return UpdateRule(losses, _names(graph, wrt), optimizer_of(optimizer))


def _precision(given: Mapping[str, Any]) -> tuple[tuple[str, Precision], ...]:
    """Return the precisions of layers; raise ValueError for one that there is not."""
    if not set(given.values()) <= {*get_args(Precision)}:
        raise ValueError("a precision is unknown")
    return tuple(given.items())


def _names(graph: Graph, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(graph[name].name for name in names)


def _model_states(plan: Plan) -> set[str]:
    """Return the states that the plan would have without an optimizer."""
    programs = [plan.programs[name] for name in ("infer", "grad") if name in plan.programs]
    return set(state_nodes([plan.declared, *(program.graph for program in programs)]))


def _kept(
    plan: Plan, found: Mapping[str, Array], optimizer: Optimizer, before: str | None
) -> dict[str, Array]:
    """Return the states that stay valid under another optimizer."""
    same = before is not None and before.partition("(")[0] == type(optimizer).__name__
    own = {name for name, node in plan.state_nodes.items() if node.op.role.kind != "hyper"}
    names = own if same else _model_states(plan)
    return {name: array for name, array in found.items() if name in names}


def _check_state(
    nodes: Mapping[str, Node], found: Mapping[str, Array], members: tuple[int, ...]
) -> None:
    """Raise ValueError unless these are the arrays of the states, in their dtypes and shapes."""
    odd = sorted(found.keys() ^ nodes.keys())
    if odd:
        raise ValueError(f"the file and the plan do not both have the state {odd[0]!r}")
    for name, node in nodes.items():
        shape = (*members, *node.type.shape)
        if (node.type.dtype, shape) != (found[name].dtype.name, found[name].shape):
            raise ValueError(f"the state {name!r} is of another type")
