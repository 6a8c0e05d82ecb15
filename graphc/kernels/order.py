"""The schedule's nodes in an order that lets more of them run together.

Among the nodes that could run next, those that fit into a kernel come before matrix products
and calls; counters, and sums that only leave a result, such as a mean loss, come last.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from graphc.graph import Graph, Node
from graphc.kernels.fit import product_of
from graphc.op import Source
from graphc.schedule import Schedule


def fusing_order(graph: Graph, schedule: Schedule) -> tuple[Node, ...]:
    """The nodes of a schedule; forward ones still come first, and states change last."""
    nodes = schedule.order
    place = {node.name: i for i, node in enumerate(nodes)}
    waiting = [0] * len(nodes)
    after: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        for need in _needs(graph, schedule, node):
            waiting[i] += 1
            after[place[need]].append(i)
    ranks = [
        (i >= schedule.border, _kind(graph, schedule, node), i) for i, node in enumerate(nodes)
    ]
    ready = [ranks[i] for i, number in enumerate(waiting) if number == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        i = heapq.heappop(ready)[2]
        order.append(nodes[i])
        for user in after[i]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, ranks[user])
    assert len(order) == len(nodes), "a schedule has no cycle"
    return tuple(order)


def _needs(graph: Graph, schedule: Schedule, node: Node) -> Sequence[str]:
    """What a node waits for: its operands, and who reads the state that it overwrites."""
    state = schedule.in_place.get(node.name)
    if state is None:
        return node.inputs
    return [*node.inputs, *(user for user in graph.users[state] if user != node.name)]


def _kind(graph: Graph, schedule: Schedule, node: Node) -> int:
    if node.name in schedule.in_place and not node.type.rank:
        return 2  # a counter: whoever reads the old number may then still be moved
    if isinstance(node.op, Source):
        return 0
    ins = [graph[operand].type for operand in node.inputs]
    along = node.op.along(ins)
    if along == "all" and not graph.users[node.name]:
        return 2
    return 1 if along == "call" or product_of(node.op, ins) is not None else 0
