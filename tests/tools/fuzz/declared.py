"""What layers mean before they become ops: their own reference rules."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ops.autodiff import Gradient
from graphc.ops.loops.op import Scan
from graphc.runtime.reference import evaluate
from tests.tools.fuzz.bound import Meant

INFERENCE = ("infer", "unlabelled", "frozen", "evaluate")


def declared(meant: Meant) -> list[dict[str, Array]]:
    """The outputs of each event by the declared graph.

    None where it has derivatives inside, or rounds factors, and of a step in shards.
    """
    meaning, case = meant.meaning, meant.meaning.case
    graph = meaning.declared
    if case.precision or derives(graph):
        return [{} for _ in case.events]
    found = []
    for number, event in enumerate(case.events):
        state = {
            name: np.asarray(array, graph[name].type.dtype)
            for name, array in meant.exact.before[number].items()
            if name in graph
        }
        if event.kind == "other" or (event.kind == "step" and case.shards > 1):
            found.append({})
            continue
        train = event.kind not in INFERENCE
        with np.errstate(all="ignore"):
            values = evaluate(graph, case.feeds(number), state, event.n, train)
        found.append({f"output {name}": values[value] for name, value in graph.outputs.items()})
    return found


def derives(nodes: Iterable[Node]) -> bool:
    """Whether there is a derivative among the nodes, or in their loops."""
    return any(
        isinstance(node.op, Gradient) or (isinstance(node.op, Scan) and derives(node.op.step.nodes))
        for node in nodes
    )
