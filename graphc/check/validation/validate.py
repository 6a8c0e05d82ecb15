"""Validates a pass, each pass of a compilation, or all passes on a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from graphc.backends.backend import PORTABLE
from graphc.base.errors import GraphError
from graphc.check.central_differences import in_float64
from graphc.check.validation.compare import first_mismatch
from graphc.check.validation.explain import explained, explained_update
from graphc.check.validation.judge import DEFINING, judge
from graphc.check.validation.run import Draw, batches_for, checked_batches, draws_for
from graphc.check.validation.updates import apply_cases
from graphc.compiler.compile import compile
from graphc.compiler.freeze import frozen_graph
from graphc.declare.net import Net, declared_graph
from graphc.declare.optim import SGD, Adam, AdamW, Optimizer
from graphc.declare.schedules import Cosine
from graphc.ir.graph import Graph, Node
from passes import DEFAULT
from passes.backward import Backward
from passes.channels_last import channels_last
from passes.contract import Pass, check_is_pass, name_of
from passes.pipeline import PassList, run_pass, run_passes
from passes.specialize import Specialize
from passes.update import Update, apply_graph

FOLDER = "graphc-failures"
"""The folder where tests are written, in the current folder."""


def validate_pass(
    step: Pass,
    graph: Graph | Net,
    *,
    batches: Iterable[int] = (1, 7),
    seed: int = 0,
    feeds: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> Graph:
    """Run a pass on a graph, and check that the new graph computes the same results.

    Both graphs run on random numbers by the ops' reference rules.  How near results must be is
    declared by the pass: bitwise, reassociated or approximate.  A net is also tried as the graphs
    that its plan has: of inference, of gradients and of steps.  `gc.check_pass` draws such nets.

    Parameters
    ----------
    step
        The pass: a function from graph to graph, or an object of a class with `__call__`.
    graph
        The graph or net that the pass runs on.
    batches
        The numbers of rows to try.
    seed
        The seed of the random numbers.
    feeds
        Arrays by name that replace random inputs, for one number of rows.
    folder
        A folder for a test with the smallest graph that still fails; none is written by default.

    Returns
    -------
    Graph
        The graph that the pass made; it warns if the pass changed nothing.

    Raises
    ------
    ValidationError
        If the pass changed a result more than it declares, or dropped a loss.
    GraphError
        If the pass makes no graph, or one with an invalid node, or if a reference rule fails.

    Examples
    --------
    >>> from graphc.check.validation import validate_pass
    >>> net = gc.Net("twice")
    >>> x = net.input("x", (gc.N, 3))
    >>> _ = net.output("y", gc.exp(x) + gc.exp(x))
    >>> len(net.graph()), len(validate_pass(gc.passes.cse, net))
    (4, 3)
    """
    where = Path(folder) if folder is not None else None
    batches = checked_batches("validate_pass", batches)
    check_is_pass(step, "validate_pass: ")
    declared = declared_graph("validate_pass", graph)

    def made_of(before: Graph) -> Graph:
        made = run_pass(step, before)
        if made is not before:
            judged(step, before, made, draws_for(before, batches, seed=seed, given=feeds), where)
        return made

    made = made_of(declared)
    fired = made is not declared
    if isinstance(graph, Net) and not isinstance(step, DEFINING):
        for name, before in stages(declared):
            try:
                fired |= made_of(before) is not before
            except Exception as error:
                error.add_note(f"in program {name!r} of net {declared.name!r}")
                raise
    if not fired:
        text = f"pass {name_of(step)!r} changed nothing in {declared.name!r}: nothing was compared"
        warnings.warn(text, stacklevel=2)
    return made


def stages(
    graph: Graph, optimizers: Sequence[Optimizer] = (SGD(lr=0.1, momentum=0.9), Adam())
) -> Iterator[tuple[str, Graph]]:
    """Yield the graphs of a declared net that passes run on, with the names of their programs.

    Each of inference, gradients and a step comes as layers, gradients and updates make it, and as
    the default passes leave it.
    """
    made = [("infer", Specialize(False)(graph))]
    wrt = tuple(node.name for node in graph if node.op.is_parameter)
    if graph.losses and wrt:
        trained = Backward(graph.losses, wrt)(Specialize(True)(graph))
        if trained.gradients:
            made.append(("grad", trained))
            made += [("step", Update(optimizer)(trained)) for optimizer in optimizers]
    made += [("frozen", Specialize(False)(frozen)) for frozen in _frozen(graph)]
    for name, before in made:
        yield name, before
        after = run_passes(before, SIMPLIFYING, verified=True)[0]
        if after is not before:
            yield name, after


def _frozen(graph: Graph) -> Iterator[Graph]:
    """Yield the declared graph with random constants for parameters, if it has outputs."""
    if set(graph.outputs) - set(graph.losses):
        draw = Draw(1)
        state = {node.name: draw.array(node) for node in graph if node.op.persistent}
        yield frozen_graph(graph, state)


SIMPLIFYING = tuple(
    entry for entry in DEFAULT if not isinstance(entry, str) and entry is not channels_last
)
"""The default passes that run on a graph of ops by themselves; channels_last goes before backward.
"""


def judged(
    step: Pass, before: Graph, made: Graph, draws: Sequence[Draw], folder: Path | None
) -> str:
    """Judge a pass that made one graph of another; return its name, or raise ValidationError."""
    try:
        failure = judge(step, before, made, draws)
    except GraphError as error:
        error.add_note(f"when pass {name_of(step)!r} was validated")
        raise
    if failure is not None:
        raise explained(step, before, failure, folder)
    return name_of(step)


class Watch:
    """Judges each pass of a compilation after it has run."""

    def __init__(self, declared: Graph, capacity: int, folder: str | Path = FOLDER) -> None:
        self.declared, self.capacity, self.folder = declared, capacity, Path(folder)
        self.judged: list[str] = []
        """The passes that were judged, in order."""

    @cached_property
    def draws(self) -> tuple[Draw, ...]:
        """The random numbers for one row, for a prime number of rows, and for the capacity."""
        return draws_for(self.declared, batches_for(self.capacity))

    def __call__(self, step: Pass, before: Graph, made: Graph) -> None:
        """Judge a pass; raise ValidationError if it fails."""
        self.judged.append(judged(step, before, made, self.draws, self.folder))

    def apply(self, parameters: Sequence[Node], optimizer: Optimizer, made: Graph) -> None:
        """Judge the graph of an update alone; raise ValidationError if it is wrong."""
        _check_apply(parameters, optimizer, made, self.draws[0], self.folder)
        self.judged.append("apply_update")


def validate_apply(
    parameters: Iterable[Node],
    optimizer: Optimizer,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Graph:
    """Check the graph that updates parameters against the optimizer's own rule in NumPy.

    Parameters
    ----------
    parameters
        Parameter nodes of a graph.
    optimizer
        The optimizer, whose `reference` is the rule.  Without that, nothing is compared.
    seed
        The seed of the random gradients and states.
    folder
        A folder for a test that shows a failure; none is written by default.

    Returns
    -------
    Graph
        The graph of the update.

    Raises
    ------
    ValidationError
        If a next state differs from the rule's.

    Examples
    --------
    >>> from graphc.check.validation import validate_apply
    >>> net = gc.Net("one")
    >>> _ = net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    >>> parameters = [node for node in net.graph() if node.op.is_parameter]
    >>> sorted(validate_apply(parameters, gc.SGD(lr=0.1)).updates)
    ['affine_1.bias', 'affine_1.weight', 'updates']
    """
    nodes = list(parameters)
    made = apply_graph(nodes, optimizer)
    _check_apply(
        nodes, optimizer, made, Draw(1, seed), Path(folder) if folder is not None else None
    )
    return made


def _check_apply(
    parameters: Sequence[Node], optimizer: Optimizer, made: Graph, draw: Draw, folder: Path | None
) -> None:
    wide = in_float64(made)
    found = first_mismatch(apply_cases(parameters, optimizer, wide, draw), draw.rows)
    if found is not None:
        raise explained_update(parameters, optimizer, wide, found, draw, folder)


OPTIMIZERS: tuple[Optimizer, ...] = (
    SGD(lr=0.1, weight_decay=0.1, clip_norm=1.0),
    SGD(lr=0.1, momentum=0.9, weight_decay=0.1),
    SGD(lr=0.1, momentum=0.9, nesterov=True),
    Adam(weight_decay=0.1),
    AdamW(schedule=Cosine(total=20, floor=0.1, warmup=3)),
    SGD(lr=0.1, momentum=0.9, accumulate=4),
)
"""Optimizers that together have each of the options that they have in common."""


@dataclass(frozen=True)
class Judged:
    """The passes that were judged, and the numbers they were judged by."""

    passes: tuple[str, ...]
    """The passes that changed something, one for each run."""
    draws: tuple[Draw, ...]

    def __str__(self) -> str:
        rows = ", ".join(str(draw.rows) for draw in self.draws)
        text = f"ok, {len(self.passes)} runs judged with {rows} rows"
        redrawn = sum(draw.redrawn for draw in self.draws)
        if redrawn:
            text += f"; numbers were redrawn {redrawn} times because of kinks"
        if any(draw.near for draw in self.draws):
            text += ", and some stayed near one"
        return text


def validate_model(
    graph: Graph, rows: int, passes: PassList | None = None, folder: str | Path = FOLDER
) -> Judged:
    """Judge each pass for inference, frozen inference, training and every optimizer.

    Raise ValidationError for the first that fails.
    """
    watch = Watch(graph, rows, folder)
    trains = bool(graph.losses) and any(node.op.is_parameter for node in graph)
    optimizers: tuple[Optimizer | None, ...] = OPTIMIZERS if trains else (None,)
    for optimizer in optimizers:
        compile(
            graph, batch=rows, optimizer=optimizer, passes=passes, backend=PORTABLE, validate=watch
        )
    for frozen in _frozen(graph):
        inner = Watch(frozen, rows, folder)
        compile(frozen, batch=rows, passes=passes, backend=PORTABLE, validate=inner)
        watch.judged.extend(inner.judged)
    return Judged(tuple(watch.judged), watch.draws)
