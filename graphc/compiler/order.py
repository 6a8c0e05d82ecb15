"""An order of the schedule's nodes that lets more of them fuse.

Among the nodes that could run next, nodes that fit into a kernel come before matrix products
and calls; counters, and sums that are only results, such as a mean loss, come last.  Values are
sent to other shards at once, and nothing waits for an arriving value before it must.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphc.compiler.schedule import Schedule, arrivals, by_rank, dependencies, readers
from graphc.ir.graph import Graph, Node
from graphc.kernels.iteration_space import TraitsOf
from graphc.ops.exchange import Receive, Send

KINDS = 4
"""The number of ranks that `_kind` returns."""


def fusing_order(
    graph: Graph, schedule: Schedule, traits: TraitsOf
) -> tuple[tuple[Node, ...], int]:
    """Return the nodes of a schedule that compute something, and how many of them are forward.

    Forward ones still come first, and states change last.
    """
    nodes = [node for node in schedule.order if not node.op.is_source]
    backward = {node.name for node in schedule.order[schedule.boundary :]}
    ranks = [
        ((node.name in backward) * KINDS + _kind(graph, schedule, node, traits)) * len(nodes) + i
        for i, node in enumerate(nodes)
    ]
    arriving = arrivals(graph)
    place = {node.name: i for i, node in enumerate(nodes)}
    before, after = dependencies(
        nodes,
        place,
        lambda node: (*_needs(graph, schedule, node, backward), *arriving.get(node.name, ())),
    )
    order = [nodes[i] for i in by_rank(ranks, before, after)]
    assert len(order) == len(nodes), "a schedule has no cycle"
    return tuple(order), sum(node.name not in backward for node in nodes)


def _needs(
    graph: Graph, schedule: Schedule, node: Node, backward: Collection[str]
) -> Sequence[str]:
    """Return the nodes that a node waits for.

    These are its operands and the users of the state that it overwrites, except users in a backward
    pass, where copies are read.
    """
    state = schedule.in_place.get(node.name)
    if state is None:
        return node.inputs
    others = (user for user in readers(graph, state) if user not in backward)
    return [*node.inputs, *(user for user in others if user != node.name)]


def _kind(graph: Graph, schedule: Schedule, node: Node, traits: TraitsOf) -> int:
    if isinstance(node.op, (Send, Receive)):
        return 0 if isinstance(node.op, Send) else 3
    if node.name in schedule.in_place and not node.type.rank:
        return 2  # a counter: whoever reads the old number may then still be moved
    if node.op.is_control:
        return 1  # recomputed values wait for all that can run with the event
    if node.op.alias or node.op.permutation is not None:
        return 0  # mostly no work, and nodes that fit into a kernel may wait for it
    known = traits(node)
    if known.iteration == "all" and not graph.users[node.name]:
        return 2
    alone = known.product is not None or known.gather is not None
    return 1 if alone or known.iteration == "call" else 0
