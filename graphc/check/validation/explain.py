"""Turns a failure into a report: the rewrite, the smallest graph, the test file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.base.own_passes import own_passes
from graphc.check.float64 import in_float64
from graphc.check.op_gradient import wrong_entries
from graphc.check.validation.compare import Mismatch
from graphc.check.validation.draws import Draw, draws_for, given_of
from graphc.check.validation.error import ValidationError, validation_error
from graphc.check.validation.judge import Failure, judge
from graphc.check.validation.reproduce import write_test
from graphc.check.validation.rewrites import first_rewrite
from graphc.check.validation.run import values_of_arrays
from graphc.check.validation.shrink import shrunk
from graphc.check.validation.updates import apply_mismatch
from graphc.declare.optim import Optimizer
from graphc.files.paths import reason
from graphc.ir.graph import Graph, Node, verify
from graphc.ir.text.graph import node_text

if TYPE_CHECKING:
    from passes.pipeline import Pass


def explained(
    step: Pass, before: Graph, made: Graph, failure: Failure, folder: Path | None
) -> ValidationError:
    """Return the error for a failed pass; write a test file if there is a folder for it."""
    from passes.pipeline import name_of

    node, rewrite = _blame(step, failure)
    name = name_of(step)
    if folder is None:
        return validation_error(name, failure.mismatch, culprit=node, rewrite=rewrite)
    found = _smallest(step, before, failure)
    if found is None:
        told = "only these numbers show it: no smaller graph was searched for, no test written"
        return validation_error(
            name, failure.mismatch, culprit=node, rewrite=rewrite, unwritten=told
        )
    smallest_step, smallest, rows = found
    call = f"validate_pass({{step}}, graph, batches=({rows},), seed={failure.draw.seed})"
    path, unwritten = _written(folder, name, smallest_step, smallest, failure.mismatch, call)
    return validation_error(
        name,
        failure.mismatch,
        culprit=node,
        rewrite=rewrite,
        smallest=smallest,
        path=path,
        unwritten=unwritten,
    )


def explained_update(
    parameters: Sequence[Node],
    optimizer: Optimizer,
    made: Graph,
    mismatch: Mismatch,
    draw: Draw,
    folder: Path | None,
) -> ValidationError:
    """Return the error for a wrong update alone; its test has one parameter if that suffices."""
    from passes.apply_update import apply_graph

    node = made.nodes.get(mismatch.node)
    rewrite = f"the pass adds {node_text(node)}" if node is not None else ""
    name = "apply_update"
    if folder is None:
        return validation_error(name, mismatch, culprit=node, rewrite=rewrite)
    smallest = list(parameters)
    for each in parameters:
        alone = in_float64(apply_graph([each], optimizer))
        if apply_mismatch([each], optimizer, alone, draw) is not None:
            smallest = [each]
            break
    path, unwritten = _written(
        folder,
        name,
        optimizer,
        Graph(name, smallest),
        mismatch,
        f"validate_apply(graph, {{step}}, seed={draw.seed})",
    )
    return validation_error(
        name, mismatch, culprit=node, rewrite=rewrite, path=path, unwritten=unwritten
    )


def _written(
    folder: Path, name: str, step: object, graph: Graph, mismatch: Mismatch, call: str
) -> tuple[Path | None, str]:
    """Write the test; return its path, or the reason why there is none."""
    try:
        return write_test(folder, name, step, graph, str(mismatch), call), ""
    except OSError as error:
        return None, f"a test could not be written: {reason(error)}: {folder}"


def _blame(step: Pass, failure: Failure) -> tuple[Node | None, str]:
    """Return the node at fault, and the change that shows it."""
    from passes.backward import Backward

    if isinstance(step, Backward):
        return _wrong_rule(failure)
    added = _added(failure)
    if added is not None:
        return added, f"the pass adds {node_text(added)}"
    found = first_rewrite(failure.old, failure.new, failure.shows)
    if found is not None:
        node = failure.new.nodes.get(found.name) or failure.old.nodes.get(found.name)
        return node, str(found)
    return None, ""


def _added(failure: Failure) -> Node | None:
    """Return the node of a next state that the graph before did not have."""
    kind, _, name = failure.mismatch.what.partition(" ")
    if kind != "update" or name in failure.old.updates or name not in failure.new.updates:
        return None
    return failure.new[failure.new.updates[name]]


def _wrong_rule(failure: Failure) -> tuple[Node | None, str]:
    """Return the first op whose own gradient rule differences do not confirm."""
    graph, draw = failure.old, failure.draw
    values = values_of_arrays(graph, draw.rows, given_of(graph, draw))
    for node in graph:
        ins = [values[name] for name in node.inputs]
        if any(array.dtype.name == "float64" for array in ins):
            try:
                wrong = next(wrong_entries(node.op.at(draw.rows), ins, limit=10), None)
            except Exception:  # a rule that cannot be run by itself
                continue
            if wrong is not None:
                return node, f"the rule of {node.op.name} {node.name!r}: {wrong}"
    kind, _, name = failure.mismatch.what.partition(" ")
    place = failure.new.gradients.get(name, "") if kind == "gradient" else ""
    added = failure.new.nodes.get(place)
    return added, f"the pass adds {node_text(added)}" if added is not None else ""


def _smallest(step: Pass, before: Graph, failure: Failure) -> tuple[Pass, Graph, int] | None:
    """Return the pass with its remaining options, a small graph, and the rows that show it.

    Return None if the graph does not fail for numbers that are drawn anew.
    """
    draw = failure.draw
    rows = next((n for n in (1, 2, 3) if _fails(step, before, n, draw.seed)), draw.rows)

    def fails(graph: Graph) -> bool:
        narrow = narrowed(step, graph)
        return narrow is not None and _fails(narrow, graph, rows, draw.seed)

    if not fails(before):
        return None
    graph = shrunk(before, fails)
    return narrowed(step, graph) or step, graph, rows


def _fails(step: Pass, graph: Graph, rows: int, seed: int) -> bool:
    try:
        made = step(graph)
        verify(made)
        return judge(step, graph, made, draws_for(graph, (rows,), seed=seed)) is not None
    except Exception:
        return False


def narrowed(step: Pass, graph: Graph) -> Pass | None:
    """Return Backward and Shard with the losses and targets of a smaller graph; others as they are.

    Return None for a Backward without any.
    """
    own_passes()
    from passes.backward import Backward
    from passes.shard import Shard

    if isinstance(step, Shard):
        return replace(step, counted=tuple(c for c in step.counted if c[0] in graph.losses))
    if not isinstance(step, Backward):
        return step
    losses = tuple(name for name in step.losses if name in graph.outputs)
    wrt = tuple(name for name in step.wrt if graph.gradients.get(name, name) in graph)
    if not losses or not wrt:
        return None
    return replace(step, losses=losses, wrt=wrt, required=())
