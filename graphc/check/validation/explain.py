"""Explains a failed pass: finds the first rewrite that shows it, and the smallest graph.

A pass returns one new graph.  Its changes are the nodes that both graphs have and that differ, in
the order of the new graph, then the roots that read another node.  Graphs between the two have the
first k of them: a node that the pass added is in such a graph if another node reads it, and so is
a node that the pass removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from graphc.base.errors import GraphError
from graphc.check.central_differences import first_wrong_rule, in_float64
from graphc.check.validation.compare import Mismatch, first_mismatch
from graphc.check.validation.faults import HINTS, Fault
from graphc.check.validation.judge import Failure, judge
from graphc.check.validation.reproduce import KINDS, NoSource, shrunk, write_test
from graphc.check.validation.run import Draw, draws_for, values_of
from graphc.check.validation.updates import apply_cases
from graphc.declare.optim.optimizer import Optimizer
from graphc.declare.optim.slots import without_own_states
from graphc.files.disk import reason
from graphc.ir.graph import Graph, Node
from graphc.ir.text.graph import name_text, node_text
from passes.backward import Backward
from passes.contract import Pass, name_of
from passes.pipeline import run_pass
from passes.shard import Shard
from passes.update import apply_graph


@dataclass(frozen=True)
class Rewrite:
    """One change of a pass: of a node, or of the node that a root reads."""

    name: str
    before: str
    after: str
    kind: str = "node"

    def __str__(self) -> str:
        return f"{self.before}  ->  {self.after}"


def rewrites(before: Graph, made: Graph) -> list[Rewrite]:
    """Return the changes of a pass in order."""
    pairs = ((before[node.name], node) for node in made if node.name in before)
    found = [
        Rewrite(new.name, node_text(old), node_text(new))
        for old, new in pairs
        if old is not new and (old.inputs, old.type, old.op) != (new.inputs, new.type, new.op)
    ]
    for kind in KINDS:
        old, new = getattr(before, kind), getattr(made, kind)
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                found.append(Rewrite(key, _read(kind, key, old), _read(kind, key, new), kind))
    return found


def between(before: Graph, made: Graph, count: int) -> Graph:
    """Return the graph with the first `count` changes; raise GraphError if those make a cycle."""
    changes = rewrites(before, made)
    if count == len(changes):
        return made
    nodes = {**made.nodes, **before.nodes}
    roots = {kind: dict(getattr(before, kind)) for kind in KINDS}
    for change in changes[:count]:
        if change.kind == "node":
            nodes[change.name] = made[change.name]
        elif change.name in getattr(made, change.kind):
            roots[change.kind][change.name] = getattr(made, change.kind)[change.name]
        else:
            del roots[change.kind][change.name]
    needed = [name for kind in KINDS for name in (*roots[kind].values(), *roots[kind])]
    order = _sorted(nodes, [*before.nodes, *(name for name in needed if name in nodes)])
    return Graph(before.name, order, losses=before.losses, **roots)


def first_rewrite(before: Graph, made: Graph, shows: Callable[[Graph], bool]) -> Rewrite | None:
    """Return the change with which the symptom begins, by halving; None if it cannot be found.

    `shows` holds for the graph of all changes.  If it also holds without any, the nodes that the
    pass added are at fault, not a change.
    """

    def holds(count: int) -> bool:
        try:
            return shows(between(before, made, count))
        except GraphError:  # these changes need later ones
            return False

    changes = rewrites(before, made)
    return None if not changes or holds(0) else changes[halved(holds, len(changes)) - 1]


def halved(bad: Callable[[int], bool], count: int) -> int:
    """Return the first bad number by bisection; 0 is good and `count` is bad."""
    good = 0
    while count - good > 1:
        middle = (good + count) // 2
        if bad(middle):
            count = middle
        else:
            good = middle
    return count


def _sorted(nodes: Mapping[str, Node], names: Iterable[str]) -> list[Node]:
    """Return the named nodes and their operands, operands first; raise GraphError for a cycle."""
    needed: dict[str, tuple[str, ...]] = {}
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in needed:
            needed[name] = nodes[name].inputs
            stack.extend(nodes[name].inputs)
    try:
        return [nodes[name] for name in TopologicalSorter(needed).static_order()]
    except CycleError as error:
        raise GraphError(f"{error.args[1][0]!r} depends on itself") from None


def _read(kind: str, key: str, roots: Mapping[str, str]) -> str:
    what = f"{kind.removesuffix('s')} {name_text(key)}"
    return f"{what} = {name_text(roots[key])}" if key in roots else f"no {what}"


# ------------------------------------------------------------------ the report

SHOWN = 8
"""The number of nodes, from its end, that an error shows of the smallest graph."""


class ValidationError(GraphError):
    """The error for a pass that changed a result, or for a wrong value of what was compiled.

    Attributes
    ----------
    layer
        What is at fault: "pass", or a layer below such as "lowering" or "backend".
    kernel
        The text of the kernel that computes the wrong value, or "".
    mismatch
        The wrong result and its numbers.
    rewrite
        The first change of the pass that shows it, as text.
    smallest
        The smallest graph found on which the pass still fails, or None; None if unpickled.
    path
        The path of the test that was written, or None.
    """

    def __init__(
        self,
        name: str,
        mismatch: Mismatch,
        blame: Blame,
        smallest: Graph | None = None,
        path: Path | None = None,
        hint: str = "",
        fault: Fault | None = None,
    ) -> None:
        culprit, self.rewrite = blame
        self.mismatch, self.smallest, self.path = mismatch, smallest, path
        self.layer = "pass" if fault is None else fault.layer
        self.kernel = "" if fault is None else fault.kernel
        lines = [f"pass {name!r}: {mismatch}" if fault is None else f"{name}: {mismatch}"]
        if self.rewrite:
            lines.append(f"  first rewrite that shows it: {self.rewrite}")
        if smallest is not None:
            lines.append(f"  smallest graph that still fails: {len(smallest)} nodes")
            lines.extend(f"    {node_text(node)}" for node in list(smallest)[-SHOWN:])
        if self.kernel:
            lines.extend(f"    {line}" for line in self.kernel.splitlines()[:SHOWN])
        super().__init__("\n".join(lines), loc=culprit.loc if culprit else None, hint=hint)

    def __reduce__(self) -> tuple[Any, ...]:
        rebuilt, made, kept = super().__reduce__()
        return rebuilt, made, {**kept, "smallest": None}  # graphs cannot be pickled


Blame = tuple[Node | None, str]
"""The node at fault, and the change that shows it, in words."""


def explained(step: Pass, before: Graph, failure: Failure, folder: Path | None) -> ValidationError:
    """Return the error for a failed pass; write a test file if there is a folder for it."""
    name, mismatch, blame = name_of(step), failure.mismatch, _blame(step, failure)
    if folder is None:
        return ValidationError(name, mismatch, blame)
    found = _smallest(step, before, failure)
    if found is None:
        hint = "only these numbers show it: no smaller graph was searched for, no test written"
        return ValidationError(name, mismatch, blame, hint=hint)
    step, smallest, rows = found
    call = f"validate_pass({{step}}, graph, batches=({rows},), seed={failure.draw.seed})"
    test = written(folder, name, step, smallest, mismatch, call)
    return ValidationError(name, mismatch, blame, smallest, *test)


def explained_fault(fault: Fault) -> ValidationError:
    """Return the error for a fault of what was compiled."""
    name = f"program {fault.program!r}, {fault.layer}"
    threads = f" and the parts of {fault.threads} threads" if fault.threads > 1 else ""
    node = "" if fault.node is None else fault.node.name
    mismatch = Mismatch(f"value {node}", fault.rows, f"{fault.what}{threads}", node=node)
    blame = fault.node, ""
    return ValidationError(name, mismatch, blame, hint=HINTS[fault.layer], fault=fault)


def explained_update(
    parameters: Sequence[Node],
    optimizer: Optimizer,
    made: Graph,
    mismatch: Mismatch,
    draw: Draw,
    folder: Path | None,
) -> ValidationError:
    """Return the error for a wrong update; its test has a single parameter if that shows it."""
    name, values = "apply_update", without_own_states(made, optimizer).updates
    blame = _addition(made.nodes.get(values.get(mismatch.what.removeprefix("update "), "")))
    if folder is None:
        return ValidationError(name, mismatch, blame)
    smallest = list(parameters)
    for each in parameters:
        alone = in_float64(apply_graph([each], optimizer))
        if first_mismatch(apply_cases([each], optimizer, alone, draw), draw.rows) is not None:
            smallest = [each]
            break
    call = f"validate_apply(graph, {{step}}, seed={draw.seed})"
    test = written(folder, name, optimizer, Graph(name, smallest), mismatch, call)
    return ValidationError(name, mismatch, blame, None, *test)


def written(
    folder: Path, name: str, step: object, graph: Graph, fault: object, call: str
) -> tuple[Path | None, str]:
    """Write the test; return its path, and a hint that names it or says why there is none."""
    try:
        path = write_test(folder, name, step, graph, str(fault), call)
    except NoSource as error:
        return None, f"no test was written, since {error}: make the pass a function of a file"
    except OSError as error:
        return None, f"a test could not be written: {reason(error)}: {folder}"
    return path, f"this test shows the failure: python -m pytest {path}"


def _blame(step: Pass, failure: Failure) -> Blame:
    """Return the node at fault, and the first change that shows the failure."""
    if isinstance(step, Backward):
        return _wrong_rule(failure)
    kind, _, name = failure.mismatch.what.partition(" ")
    old, new = failure.old, failure.new
    if kind in ("loss", "start"):
        return old.nodes.get(old.outputs.get(name, name)), ""
    if kind == "update" and name not in old.updates and name in new.updates:
        return _addition(new[new.updates[name]])
    found = first_rewrite(old, new, failure.shows)
    if found is None:
        return None, ""
    return new.nodes.get(found.name) or old.nodes.get(found.name), str(found)


def _addition(node: Node | None) -> Blame:
    return node, f"the pass adds {node_text(node)}" if node is not None else ""


def _wrong_rule(failure: Failure) -> Blame:
    """Return the first node whose gradient rule disagrees with differences."""
    graph, draw = failure.old, failure.draw
    found = first_wrong_rule(graph, values_of(graph, draw), draw.rows)
    if found is not None:
        node, wrong = found
        return node, f"the rule of {node.op.name} {node.name!r}: {wrong}"
    kind, _, name = failure.mismatch.what.partition(" ")
    gradient = failure.new.gradients.get(name, "") if kind == "gradient" else ""
    return _addition(failure.new.nodes.get(gradient))


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
        made = run_pass(step, graph)
        return judge(step, graph, made, draws_for(graph, (rows,), seed=seed)) is not None
    except Exception:
        return False


def narrowed(step: Pass, graph: Graph) -> Pass | None:
    """Return Backward and Shard with the losses and targets of a smaller graph; others as they are.

    Return None for a Backward without any.
    """
    if isinstance(step, Shard):
        return replace(step, counted=tuple(c for c in step.counted if c[0] in graph.losses))
    if not isinstance(step, Backward):
        return step
    losses = tuple(name for name in step.losses if name in graph.outputs)
    wrt = tuple(name for name in step.wrt if graph.gradients.get(name, name) in graph)
    if not losses or not wrt:
        return None
    return replace(step, losses=losses, wrt=wrt, required=())
