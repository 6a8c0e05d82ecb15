"""Make a failing case small: fewer runs, options, passes, nodes, and shorter dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import graphc as gc
from graphc.declare.optim import Optimizer
from graphc.ir.graph import Graph, Node
from graphc.ops.reduce import Mean
from graphc.ops.source import Constant, Input, Parameter, State
from tests.tools.fuzz.case import Case, Event
from tests.tools.fuzz.check import Verdict
from tests.tools.fuzz.draw import OPTIONAL
from tests.tools.fuzz.resize import smaller_sizes

TRIALS = 1000
"""Cases that are tried: some 20 seconds of NumPy's."""

Judge = Callable[[Case], Verdict]


def shrink(failing: Verdict, judge: Judge, trials: int = TRIALS) -> Verdict:
    """A smaller case that fails in the same way, as far as so many trials find one."""
    found = True
    while found:
        found = False
        for case in smaller(failing.case):
            trials -= 1
            if trials < 0:
                return failing
            verdict = judge(case)
            if _alike(verdict, failing):
                failing, found = verdict, True
                break
    return failing


def _alike(a: Verdict, b: Verdict) -> bool:
    """Whether both are wrong, or both raised the same kind of error."""
    return a.kind == b.kind and (a.kind != "raised" or a.error == b.error)


def smaller(case: Case) -> Iterator[Case]:
    """Cases with one thing less, the largest things first."""
    yield from _fewer_events(case)
    yield from _plainer_options(case)
    for graph in filter(_says_rows, _smaller_graphs(case.graph)):
        yield _keeping(case, graph)
    yield from _fewer_rows(case)
    yield from _plainer_optimizers(case)


def _fewer_events(case: Case) -> Iterator[Case]:
    if len(case.events) > 1:
        yield from (replace(case, events=(event,)) for event in case.events)
        for i in range(len(case.events)):
            yield replace(case, events=(*case.events[:i], *case.events[i + 1 :]))
    elif case.events[0].kind != "infer":
        yield replace(case, events=(Event("infer", case.events[0].n),))


def _plainer_options(case: Case) -> Iterator[Case]:
    plain: dict[str, object] = {
        "backend": "numpy",
        "threads": 1,
        "tight": False,
        "again": False,
        "synchronised": False,
        "other": None,
        "shards": 1,
        "off": OPTIONAL,
        "losses": None,
        "outputs": None,
        "wrt": None,
        "precision": (),
    }
    if not {event.kind for event in case.events} & {"step", "update", "other"}:
        plain["optimizer"] = None
    for name, value in plain.items():
        if getattr(case, name) != value and not (case.again and name == "off"):
            yield replace(case, **{name: value})  # type: ignore[arg-type]
    for name in OPTIONAL:
        if name not in case.off and not (case.again and name == "rematerialize"):
            yield replace(case, off=(*case.off, name))


def _says_rows(graph: Graph) -> bool:
    """Whether an input says how many rows there are, where anything depends on that."""
    batched = [node for node in graph if node.type.batched]
    return not batched or any(isinstance(node.op, Input) for node in batched)


def _keeping(case: Case, graph: Graph) -> Case:
    """The case with another graph; choices of what that has no more are dropped."""

    def kept(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        found = names and tuple(n for n in names if n in graph or n in graph.outputs or "*" in n)
        return found or None

    return replace(
        case,
        graph=graph,
        losses=kept(case.losses),
        outputs=kept(case.outputs),
        wrt=kept(case.wrt),
        precision=tuple(one for one in case.precision if kept(one[:1])),
    )


def _smaller_graphs(graph: Graph) -> Iterator[Graph]:
    if len(needed(graph)) < len(graph):
        yield needed(graph)
        yield from _without_an_end(graph)
    for name in graph.outputs:
        if len(graph.outputs) > 1:
            yield _without_output(graph, name)
    yield from _earlier_outputs(graph)
    for name in graph.losses:  # what is only inferred is as wrong when it is no loss
        losses = [other for other in graph.losses if other != name]
        yield Graph(graph.name, graph, outputs=graph.outputs, losses=losses)
    for node in reversed(list(graph)):
        for earlier in reversed(list(graph)):
            same = earlier.type == node.type and earlier is not node
            if same and earlier.name in graph.upstream(node.inputs):
                yield graph.replace({node.name: None}, reads={node.name: earlier.name})
    for node in reversed(list(graph)):
        if not isinstance(node.op, (Input, Parameter, State, Constant)):
            fed = Node(node.name, Input(node.type.shape, node.type.dtype), (), node.type)
            yield graph.replace({node.name: fed})
    yield from smaller_sizes(graph)


def needed(graph: Graph) -> Graph:
    """The graph without what no output depends on."""
    kept = graph.upstream(graph.outputs.values())
    return graph.with_nodes(node for node in graph if node.name in kept)


def _without_an_end(graph: Graph) -> Iterator[Graph]:
    """One of the nodes left out that nothing reads."""
    for node in reversed(list(graph)):
        if not graph.users.get(node.name) and node.name not in graph.roots:
            yield graph.replace({node.name: None})


def _without_output(graph: Graph, name: str) -> Graph:
    outputs = {other: value for other, value in graph.outputs.items() if other != name}
    losses = [other for other in graph.losses if other != name]
    return Graph(graph.name, graph, outputs=outputs, losses=losses)


def _earlier_outputs(graph: Graph) -> Iterator[Graph]:
    """What an output is made of in its place; for a loss, the mean of that."""
    for name, value in graph.outputs.items():
        made = graph[value]
        if name in graph.losses and isinstance(made.op, Mean):
            made = graph[made.inputs[0]]
        for operand in made.inputs:
            node = graph[operand]
            if node.type.is_float and not isinstance(node.op, (Input, Parameter, State, Constant)):
                yield _shown(graph, name, node)


def _shown(graph: Graph, name: str, node: Node) -> Graph:
    nodes = list(graph)
    if name in graph.losses and node.type.rank:
        axes, type = tuple(range(node.type.rank)), node.type.with_shape(())
        node = Node(f"{node.name}.mean_of_all", Mean(axes), (node.name,), type)
        nodes += [] if node.name in graph else [node]
    outputs = {**graph.outputs, name: node.name}
    return Graph(graph.name, nodes, outputs=outputs, losses=graph.losses)


def _fewer_rows(case: Case) -> Iterator[Case]:
    most = max(event.n for event in case.events)
    for n in (1, 2, 3, most // 2, most - 1):
        if 0 < n < most:
            yield _with_rows(case, max(n, case.shards), n)
    if case.batch > max(most, case.shards):
        yield _with_rows(case, max(most, case.shards), most)


def _with_rows(case: Case, batch: int, most: int) -> Case:
    fewer = replace(case, batch=batch)
    events = (Event(e.kind, min(e.n, most, fewer.most(e.kind))) for e in case.events)
    return replace(fewer, events=tuple(events))


def _plainer_optimizers(case: Case) -> Iterator[Case]:
    if case.optimizer is None:
        return
    if case.optimizer != gc.SGD(lr=case.optimizer.lr):
        yield replace(case, optimizer=gc.SGD(lr=case.optimizer.lr))
    for optimizer in _without_an_option(case.optimizer):
        yield replace(case, optimizer=optimizer)


def _without_an_option(optimizer: Optimizer) -> Iterator[Optimizer]:
    for field in fields(optimizer):
        if field.name != "lr" and getattr(optimizer, field.name) != field.default:
            plain: dict[str, Any] = {field.name: field.default}
            try:
                yield replace(optimizer, **plain)
            except gc.GraphError:
                continue
