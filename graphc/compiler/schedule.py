"""The order in which a graph's nodes run.

`schedule` finds an order that frees memory early.  Forward nodes keep the graph's order and precede
backward ones.  An update node runs as soon as it can, so that the gradient it consumes is freed
early; but never before the last user of the state's old value, since every read in a step sees
the state from before the step.

`fusing_order` changes it so that more nodes fuse.  Among the nodes that could run next, nodes that
fit into a kernel come before matrix products and calls; counters, and sums that are only results,
such as a mean loss, come last.  Values are sent to other shards at once, and nothing waits for an
arriving value before it must.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, Source
from graphc.kernels.traits import TraitsOf
from graphc.ops.shape import Cast

KINDS = 6
"""The number of ranks that `_kind` returns."""


@dataclass(frozen=True)
class Schedule:
    """Nodes in order; the first `boundary` of them are forward.

    `in_place` maps a node to the state whose memory it may write; `commits` are the
    (state, value) pairs that have to be copied at the end of the forward pass instead.  `waits`
    maps a node to those that it waits for besides its operands: one that overwrites a state to the
    other users of the old value, a received value to the sends of its bucket.
    """

    order: tuple[Node, ...]
    boundary: int
    in_place: Mapping[str, str]
    commits: tuple[tuple[str, str], ...]
    waits: Mapping[str, Sequence[str]]


def keep_old_states(graph: Graph) -> Graph:
    """Return the graph in which late users of a state read a copy; `graph` if there are none.

        d_x = mul(d_h, s)                s.before = cast(s)
        output mean = s           ->     d_x = mul(d_h, s.before)
        update s = s.next                output mean = s.before
                                         update s = s.next

    A state is overwritten in the forward pass, as soon as its users there are done.  Users in
    the backward pass, and an output or gradient that is the state itself, need the value from
    before.  A cast to the same dtype copies it.
    """
    if not graph.updates:
        return graph
    backward = backward_nodes(graph)
    ends = {*graph.outputs.values(), *graph.gradients.values()}
    late = {
        name: {u for u in graph.users[name] if u in backward or _is_kept(graph, u, ends)}
        for name in graph.updates
    }
    kept = {name: _free_name(graph, name) for name in graph.updates if late[name] or name in ends}
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
    return graph.with_nodes(
        nodes,
        outputs={name: kept.get(value, value) for name, value in graph.outputs.items()},
        gradients={name: kept.get(value, value) for name, value in graph.gradients.items()},
    )


def _is_kept(graph: Graph, name: str, ends: set[str]) -> bool:
    """Return whether a node, or one that may be a view of it, is a result and may be a view."""
    views = [name]
    while views:
        view = views.pop()
        if _may_be_view(graph, view):
            if view in ends:
                return True
            views += graph.users[view]
    return False


def _free_name(graph: Graph, state: str) -> str:
    name = f"{state}.before"
    while name in graph:
        name += "_"
    return name


def schedule(graph: Graph) -> Schedule:
    """Order the nodes of a graph in which every node is needed."""
    if not graph.updates and not graph.gradients:
        return Schedule(tuple(graph), len(graph), {}, (), arrivals(graph))
    eager = _eager(graph)
    backward = backward_nodes(graph)
    users = _users(graph, backward)
    in_place, commits = _writers(graph, users)
    arriving = arrivals(graph)
    while True:
        waits = {**_waits(in_place, users), **arriving}
        order, stuck = _list_schedule(graph, waits, backward, eager)
        if not stuck:
            break
        value = next(name for name in in_place if name in stuck)
        commits.append((in_place.pop(value), value))
    boundary = len(order) - len(backward)
    return Schedule(tuple(order), boundary, in_place, tuple(commits), waits)


def backward_nodes(graph: Graph) -> set[str]:
    """Return the nodes that neither outputs nor updates need; none in a graph without gradients.

    Nodes that read only states which the forward pass overwrites are computed there, before that.
    """
    if not graph.gradients:
        return set()
    forward = graph.upstream([*graph.outputs.values(), *graph.updates.values()])
    return {
        node.name
        for node in graph
        if node.name not in forward and not (node.inputs and graph.updates.keys() >= {*node.inputs})
    }


def _eager(graph: Graph) -> set[str]:
    """Return the nodes that run as soon as they can.

    These are next values of states that nothing else needs, sends, and what both may wait for that
    needs no feed: the states themselves, and numbers such as the learning rate.
    """
    others = graph.upstream([*graph.outputs.values(), *graph.gradients.values()])
    early = {name for name in graph.updates.values() if name not in others}
    fed: set[str] = set()
    for node in graph:
        if node.op.is_input or not fed.isdisjoint(node.inputs):
            fed.add(node.name)
        elif node.op.is_source or node.type.rank == 0:
            early.add(node.name)
    return early.union(node.name for node in graph if _end(node) == "send")


def arrivals(graph: Graph) -> dict[str, list[str]]:
    """Return, for each value that arrives, the ones sent with it: they travel as a whole."""
    ends: dict[str, dict[int, list[str]]] = {"send": {}, "receive": {}}
    for node in graph:
        if node.op.transfer is not None:
            end, number = node.op.transfer
            ends[end].setdefault(number, []).append(node.name)
    return {name: ends["send"][i] for i, names in ends["receive"].items() for name in names}


def _end(node: Node) -> str:
    """Return the end of a transfer that a node is; "" for other nodes."""
    return "" if node.op.transfer is None else node.op.transfer[0]


def _writers(
    graph: Graph, users: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the update nodes that may write their state's memory, and the updates to copy."""
    in_place: dict[str, str] = {}
    commits: list[tuple[str, str]] = []
    for state, value in graph.updates.items():
        if value not in in_place and _may_write(graph, state, value, users):
            in_place[value] = state
        else:
            commits.append((state, value))
    return in_place, commits


def _users(graph: Graph, backward: Collection[str]) -> dict[str, list[str]]:
    """Return, for each updated state and its next value, the nodes that read it.

    It is decided later whether kernels read a transpose, some columns or a repeated number from the
    bytes of the value itself, so all users of such a node count.  Nodes of a backward pass are
    left out: the old states that they read have been copied.
    """
    found: dict[str, list[str]] = {}
    for name in (*graph.updates, *graph.updates.values()):
        users = dict.fromkeys(graph.users[name])
        seen = [user for user in users if _may_be_view(graph, user)]
        while seen:
            more = [user for user in graph.users[seen.pop()] if user not in users]
            users.update(dict.fromkeys(more))
            seen += [user for user in more if _may_be_view(graph, user)]
        found[name] = [user for user in users if user not in backward]
    return found


def _may_be_view(graph: Graph, name: str) -> bool:
    """Return whether kernels may read a node's result from the bytes of its operand."""
    node = graph[name]
    if type(node.op).may_be_view is Op.may_be_view:
        return node.op.alias  # as for most ops, without their operands' types
    return node.op.may_be_view([graph[name].type for name in node.inputs])


def _may_write(graph: Graph, state: str, value: str, users: Mapping[str, Sequence[str]]) -> bool:
    node = graph[value]
    if isinstance(node.op, Source) or node.op.alias or _end(node) == "receive":
        return False
    if any([o == state and i not in node.op.inplace for i, o in enumerate(node.inputs)]):
        return False
    if state in graph.roots or any([graph[user].op.alias for user in graph.users[state]]):
        return False
    if not users[value]:
        return True
    others = {user for user in users[state] if user != value}
    return not others or others.isdisjoint(graph.downstream([value]))


def _waits(in_place: Mapping[str, str], users: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return, for each node that overwrites a state, the other users it waits for."""
    waits: dict[str, list[str]] = {}
    for value, state in in_place.items():
        others = [user for user in users[state] if user != value]
        if others:
            waits[value] = others
    return waits


def _list_schedule(
    graph: Graph, waits: Mapping[str, Sequence[str]], backward: set[str], eager: set[str]
) -> tuple[list[Node], set[str]]:
    """Return the nodes in order, and those that wait for each other in a cycle."""
    nodes = list(graph)
    given = {n.name for n in nodes if n.op.is_source and not n.op.is_input}
    position = {node.name: i for i, node in enumerate(nodes) if node.name not in given}
    before, after = _dependencies(nodes, position, waits)
    order = [nodes[i] for i in _by_rank(_ranks(nodes, backward, eager), before, after)]
    if len(order) == len(nodes):
        return order, set()
    return order, {nodes[i].name for i, number in enumerate(before) if number > 0}


def _ranks(nodes: Sequence[Node], backward: set[str], eager: set[str]) -> list[int]:
    """Return a number for each node: forward before backward, then eager first, then by position.

    Values received from other shards come last: until then all other nodes hide the exchange.
    """
    count = len(nodes)
    late = [4 * (_end(node) == "receive") for node in nodes]
    return [
        (late[i] + (node.name in backward) * 2 + (node.name not in eager)) * count + i
        for i, node in enumerate(nodes)
    ]


def _dependencies(
    nodes: Sequence[Node], position: Mapping[str, int], waits: Mapping[str, Sequence[str]]
) -> tuple[list[int], list[list[int]]]:
    """Return, by position, how many others a node waits for, and the nodes that wait for it.

    Nodes without a position wait for nothing, and nothing waits for them.
    """
    none: list[int] = []
    before = [0] * len(nodes)
    after = [none] * len(nodes)
    for i in position.values():
        node = nodes[i]
        more = waits.get(node.name)
        for need in node.inputs if more is None else (*node.inputs, *more):
            earlier = position.get(need)
            if earlier is not None:
                before[i] += 1
                if after[earlier]:
                    after[earlier].append(i)
                else:
                    after[earlier] = [i]
    return before, after


def _by_rank(
    ranks: Sequence[int], before: list[int], after: Sequence[Sequence[int]]
) -> Iterator[int]:
    """Yield positions by rank, each when nothing is left that it waits for: `before` counts down.

    A rank is the position modulo the number of nodes.
    """
    ready = [ranks[i] for i, number in enumerate(before) if number == 0]
    heapq.heapify(ready)
    while ready:
        position = heapq.heappop(ready) % len(ranks)
        yield position
        for user in after[position]:
            before[user] -= 1
            if before[user] == 0:
                heapq.heappush(ready, ranks[user])


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
    place = {node.name: i for i, node in enumerate(nodes)}
    before, after = _dependencies(nodes, place, schedule.waits)
    order = [nodes[i] for i in _by_rank(ranks, before, after)]
    assert len(order) == len(nodes), "a schedule has no cycle"
    return tuple(order), sum(node.name not in backward for node in nodes)


def _kind(graph: Graph, schedule: Schedule, node: Node, traits: TraitsOf) -> int:
    """Return the rank of a node among those that could run next: the lowest runs first."""
    if node.op.transfer is not None:
        return 0 if _end(node) == "send" else 5
    if node.name in schedule.in_place and not node.type.rank:
        return 4  # a counter: whoever reads the old number may then still be moved
    others = {*schedule.waits.get(node.name, ())}
    if node.name in schedule.in_place and not others <= {*node.inputs}:
        return 1  # those that read the old value may then still be joined by what reads them
    if node.op.is_control:
        return 2  # recomputed values wait for all that can run with the event
    if node.op.alias or node.op.permutation is not None:
        return 0  # mostly no work, and nodes that fit into a kernel may wait for it
    known = traits(node)
    if known.iteration == "all" and not graph.users[node.name]:
        return 4
    alone = known.product is not None or known.gather is not None
    return 3 if alone or known.iteration == "call" else 0
