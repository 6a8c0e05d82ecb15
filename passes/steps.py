"""Run a pass on the graphs inside of ops, such as the steps of loops, as on any graph.

h = scan(step: a = x + 0; h = tanh(a))      ->      h = scan(step: h = tanh(x))
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.graph import Graph, Node, joint_results


def on_steps(run: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """Return the graph whose ops have inside what `run` makes of the graphs there.

    `run` returns the same object if it changes nothing.
    """
    changed: dict[str, Node | None] = {}
    for nodes in joint_results(graph):
        changed.update(nodes[0].op.with_inside(nodes, run))
    return graph.replace(changed) if changed else graph
