"""Copies of states for readers that run after the state may have been overwritten.

    d_x = mul(d_h, s)                s.before = cast(s)
    output mean = s           ->     d_x = mul(d_h, s.before)
    update s = s.next                output mean = s.before
                                     update s = s.next

A state is overwritten in the forward pass, as soon as its readers there are done.  Readers in
the backward pass, and an output or gradient that is the state itself, need the value from
before.  A cast to the same dtype copies it.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.compiler.schedule import backward_nodes, may_be_view
from graphc.ir.graph import Graph, Node
from graphc.ops.shape import Cast


def keep_old_states(graph: Graph) -> Graph:
    """Return the graph in which late readers of a state read a copy; `graph` if there are none."""
    if not graph.updates:
        return graph
    backward = backward_nodes(graph)
    late = {name: _late_readers(graph, name, backward) for name in graph.updates}
    ends = {*graph.outputs.values(), *graph.gradients.values()}
    kept = {name: _free(graph, name) for name in graph.updates if late[name] or name in ends}
    if not kept:
        return graph
    nodes: list[Node] = []
    for node in graph:
        old = {name for name in node.inputs if name in kept and node.name in late[name]}
        if old:
            inputs = tuple(kept[name] if name in old else name for name in node.inputs)
            node = replace(node, inputs=inputs)
        nodes.append(node)
        if node.name in kept:
            copy = Cast(node.type.dtype)
            nodes.append(Node(kept[node.name], copy, (node.name,), node.type, node.locs))
    return Graph(
        graph.name,
        nodes,
        outputs={name: kept.get(value, value) for name, value in graph.outputs.items()},
        losses=graph.losses,
        gradients={name: kept.get(value, value) for name, value in graph.gradients.items()},
        updates=graph.updates,
    )


def _free(graph: Graph, state: str) -> str:
    name = f"{state}.before"
    while name in graph:
        name += "_"
    return name


def _late_readers(graph: Graph, state: str, backward: set[str]) -> set[str]:
    """Return the readers in the backward pass, and all that may be a view of the state's bytes."""
    users = graph.users.get(state, ())
    return {user for user in users if user in backward or may_be_view(graph, graph[user])}
