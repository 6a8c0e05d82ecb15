"""Keep only the sends of a step, for all shards of a rank but its last.

    d_w.sent = send(d_w)                 d_w.sent = send(d_w)
    d_w.sum = receive(d_w.sent)   ->     output d_w.sent = d_w.sent
    updates w: w.next, ...

The rank adds up the values sent.  The program of its last shard, which is complete, sends the sum.
A shard still receives the values that it needs to continue, such as a statistic of the whole batch.
"""

from __future__ import annotations

from graphc.ir.graph import Graph
from graphc.ops.exchange import Send
from passes.contract import graph_pass


@graph_pass(preserves="bitwise")
def keep_sends(graph: Graph) -> Graph:
    """Return the graph whose only results are its sends, if it has some; it changes no state."""
    alive = graph.upstream(graph.roots)
    sends = [node for node in graph if isinstance(node.op, Send) and node.name in alive]
    if not sends:
        return graph
    needed = graph.upstream(operand for node in sends for operand in node.inputs)
    last = [node.name for node in sends if needed.isdisjoint(graph.users[node.name])]
    return Graph(graph.name, graph, outputs={name: name for name in last})
