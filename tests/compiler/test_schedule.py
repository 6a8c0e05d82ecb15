"""The order of nodes, and which updates may be written over the state that they replace."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.compiler.schedule import Schedule, arrivals, backward_nodes, schedule
from graphc.ir.graph import Graph
from graphc.ir.op import Source
from graphc.ir.text.parse import parse_graph
from graphc.ops import OPS
from graphc.ops.source import Input
from tests.tools.generate import nets


def parsed(text: str) -> Graph:
    lines = [line.strip() for line in text.strip().splitlines()]
    return parse_graph("\n".join(["graph g", *lines, ""]), OPS)


def scheduled(text: str) -> Schedule:
    return schedule(parsed(text))


def names(found: Schedule) -> list[str]:
    return [node.name for node in found.order]


def test_forward_nodes_keep_their_order() -> None:
    found = scheduled("""
        x: float32[N, 2] = input()
        b: float32[N, 2] = neg(x)
        a: float32[N, 2] = exp(x)
        c: float32[N, 2] = add(a, b)
        output c = c
    """)
    assert names(found) == ["x", "b", "a", "c"]
    assert (found.boundary, dict(found.in_place), found.commits) == (4, {}, ())


def test_without_updates_and_gradients_the_order_is_the_graph_s() -> None:
    found = scheduled("""
        x: float32[N, 2] = input()
        a: float32[N, 2] = exp(x)
        w: float32[2] = parameter()  init=He()
        b: float32[N, 2] = mul(a, w)
        output b = b
    """)
    assert names(found) == ["x", "a", "w", "b"]


def test_an_update_waits_for_all_who_read_the_old_value() -> None:
    found = scheduled("""
        s: float32[2] = state()  start=0.0
        next: float32[2] = neg(s)
        x: float32[2] = input()
        late: float32[2] = mul(x, s)
        output y = late
        update s = next
    """)
    assert names(found) == ["s", "x", "late", "next"]
    assert dict(found.in_place) == {"next": "s"}
    assert found.commits == ()


def test_an_update_that_nothing_needs_runs_as_soon_as_it_can() -> None:
    found = scheduled("""
        x: float32[2] = input()
        s: float32[2] = state()  start=0.0
        a: float32[2] = neg(x)
        b: float32[2] = exp(a)
        next: float32[2] = add(s, a)
        output y = b
        update s = next
    """)
    assert names(found) == ["s", "x", "a", "next", "b"]


def test_numbers_that_need_no_feed_are_there_early() -> None:
    found = scheduled("""
        x: float32[2] = input()
        t: float32[] = state()  start=0.0
        a: float32[2] = neg(x)
        rate: float32[] = exp(t)
        wide: float32[2] = state()  start=0.0
        made: float32[2] = exp(wide)
        y: float32[2] = mul(a, rate)
        z: float32[2] = mul(y, made)
        next: float32[] = neg(t)
        output z = z
        update t = next
    """)
    # `rate` is a number of a state; `made` is none, and waits for its turn.  `next` may be
    # written over t once `rate` has been made.
    assert names(found) == ["t", "rate", "wide", "next", "x", "a", "made", "y", "z"]


def test_a_number_of_what_is_fed_waits_for_its_turn() -> None:
    found = scheduled("""
        x: float32[2] = input()
        total: float32[] = sum(x)  axes=(0,)
        a: float32[2] = neg(x)
        rate: float32[] = exp(total)
        t: float32[] = state()  start=0.0
        y: float32[2] = mul(a, rate)
        next: float32[] = neg(t)
        output y = y
        update t = next
    """)
    assert names(found) == ["t", "next", "x", "total", "a", "rate", "y"]


def test_states_that_change_places_need_one_copy() -> None:
    found = scheduled("""
        a: float32[2] = state()  start=0.0
        b: float32[2] = state()  start=1.0
        x: float32[2] = neg(a)
        y: float32[2] = neg(b)
        update a = y
        update b = x
    """)
    assert names(found) == ["a", "b", "y", "x"]  # x may overwrite b once y has read it
    assert dict(found.in_place) == {"x": "b"}
    assert found.commits == (("a", "y"),)


def test_a_ring_of_three_needs_one_copy() -> None:
    found = scheduled("""
        a: float32[2] = state()  start=0.0
        b: float32[2] = state()  start=1.0
        c: float32[2] = state()  start=2.0
        x: float32[2] = neg(a)
        y: float32[2] = neg(b)
        z: float32[2] = neg(c)
        update a = z
        update b = x
        update c = y
    """)
    assert found.commits == (("a", "z"),)
    assert dict(found.in_place) == {"x": "b", "y": "c"}
    order = names(found)
    assert order.index("z") < order.index("y") < order.index("x")


def test_only_a_ring_is_copied() -> None:
    """The first update may write in place, however many others cannot."""
    found = scheduled("""
        a: float32[2] = state()  start=0.0
        b: float32[2] = state()  start=1.0
        c: float32[2] = state()  start=2.0
        w: float32[2] = neg(c)
        x: float32[2] = neg(a)
        y: float32[2] = neg(b)
        update c = w
        update a = y
        update b = x
    """)
    assert dict(found.in_place) == {"w": "c", "x": "b"}
    assert found.commits == (("a", "y"),)


def test_what_hangs_on_a_copy_is_not_copied() -> None:
    """`both` needs the old s and its next value; the next t only waits for it."""
    found = scheduled("""
        x: float32[2] = input()
        s: float32[2] = state()  start=0.0
        t: float32[2] = state()  start=0.0
        next: float32[2] = add(s, x)
        both: float32[2] = mul(next, s)
        after: float32[2] = add(t, both)
        update t = after
        update s = next
    """)
    assert dict(found.in_place) == {"after": "t"}
    assert found.commits == (("s", "next"),)


def refused(value: str, *others: str) -> None:
    """The next value of s is copied there at the end."""
    found = scheduled(
        "\n".join(
            [
                "x: float32[2, 2] = input()",
                "s: float32[2, 2] = state()  start=0.0",
                value,
                *others,
                "update s = next",
            ]
        )
    )
    assert dict(found.in_place) == {}
    assert found.commits == (("s", "next"),)


def test_what_is_copied() -> None:
    # The product reads s after it has begun to write.
    refused("next: float32[2, 2] = matmul(s, x)", "output y = x")
    # The old value is an output.
    refused("next: float32[2, 2] = add(s, x)", "output y = s")
    # Another reader is the bytes of s itself, for as long as it is needed.
    refused("next: float32[2, 2] = add(s, x)", "r: float32[4] = reshape(s)", "output y = r")
    # The next value is the bytes of something else.
    refused("next: float32[2, 2] = stop_gradient(x)", "output y = x")
    # It is fed.
    found = scheduled("""
        next: float32[2] = input()
        s: float32[2] = state()  start=0.0
        y: float32[2] = neg(s)
        output y = y
        update s = next
    """)
    assert found.commits == (("s", "next"),)
    # A reader of the old value needs the new one too.
    refused(
        "next: float32[2, 2] = add(s, x)",
        "both: float32[2, 2] = mul(next, s)",
        "output y = both",
    )


def test_a_product_that_does_not_read_the_state_may_write_it() -> None:
    found = scheduled("""
        x: float32[2, 2] = input()
        s: float32[2, 2] = state()  start=0.0
        next: float32[2, 2] = matmul(x, x)
        output y = x
        update s = next
    """)
    assert dict(found.in_place) == {"next": "s"}


def test_a_new_value_that_is_read_elsewhere_is_no_hindrance() -> None:
    found = scheduled("""
        x: float32[2] = input()
        s: float32[2] = state()  start=0.0
        old: float32[2] = neg(s)
        next: float32[2] = add(s, x)
        new: float32[2] = exp(next)
        output old = old
        output new = new
        update s = next
    """)
    assert dict(found.in_place) == {"next": "s"}


def test_one_value_for_two_states_is_made_in_the_first() -> None:
    found = scheduled("""
        x: float32[2] = input()
        s: float32[2] = state()  start=0.0
        t: float32[2] = state()  start=0.0
        next: float32[2] = neg(x)
        output y = x
        update s = next
        update t = next
    """)
    assert dict(found.in_place) == {"next": "s"}
    assert found.commits == (("t", "next"),)


GRADIENTS = """
    x: float32[N, 2] = input()
    w: float32[2, 2] = parameter()  init=He()
    m: float32[] = state()  start=0.0
    y: float32[N, 2] = matmul(x, w)
    loss: float32[] = sum(y)  axes=(0, 1)
    dy: float32[N, 2] = broadcast_to(m)  shape=(N, 2)
    dw: float32[2, 2] = matmul(x, dy)  trans_a=True
    next: float32[] = add(m, loss)
    output loss = loss
    losses loss
    gradient w = dw
    update m = next
"""


def test_forward_comes_before_backward() -> None:
    found = scheduled(GRADIENTS)
    assert names(found)[found.boundary :] == ["dw"]
    # `dy` is made of a state alone that the forward pass overwrites, so it is made before that.
    assert names(found).index("dy") < names(found).index("next")


def test_without_gradients_all_is_forward() -> None:
    found = scheduled(GRADIENTS.replace("gradient w", "output d"))
    assert found.boundary == len(found.order) == 8


def test_gradients_without_updates() -> None:
    """Two nodes are backward, the one that reads no more than states among them."""
    found = scheduled("""
        x: float32[N, 2] = input()
        w: float32[2, 2] = parameter()  init=He()
        y: float32[N, 2] = matmul(x, w)
        dy: float32[N, 2] = exp(x)
        dw: float32[2, 2] = matmul(x, dy)  trans_a=True
        loss: float32[] = sum(y)  axes=(0, 1)
        output loss = loss
        losses loss
        gradient w = dw
    """)
    assert names(found) == ["w", "x", "y", "loss", "dy", "dw"]
    assert found.boundary == 4


EXCHANGE = """
    x: float32[2] = input()
    a: float32[2] = neg(x)
    b: float32[2] = exp(x)
    a.sent: float32[2] = send(a)  bucket=0 members=2 offset=0
    b.sent: float32[2] = send(b)  bucket=0 members=2 offset=64
    a.sum: float32[2] = receive(a.sent)  bucket=0 members=2
    b.sum: float32[2] = receive(b.sent)  bucket=0 members=2
    c: float32[2] = tanh(x)
    c.sent: float32[2] = send(c)  bucket=1 members=1 offset=128
    c.sum: float32[2] = receive(c.sent)  bucket=1 members=1
    s: float32[2] = state()  start=0.0
    next: float32[2] = add(s, a.sum)
    output b = b.sum
    output c = c.sum
    update s = next
"""


def test_a_bucket_arrives_as_a_whole() -> None:
    assert arrivals(parsed(EXCHANGE)) == {
        "a.sum": ["a.sent", "b.sent"],
        "b.sum": ["a.sent", "b.sent"],
        "c.sum": ["c.sent"],
    }


def test_what_is_sent_goes_at_once_and_what_arrives_is_awaited_last() -> None:
    order = names(scheduled(EXCHANGE))
    assert order[:-1] == [
        "s", "x", "a", "a.sent", "b", "b.sent", "c", "c.sent", "a.sum", "next", "b.sum",
    ]  # fmt: skip


def test_a_value_is_awaited_when_its_bucket_is_whole() -> None:
    """One of them depends on what another bucket brings."""
    order = names(
        scheduled("""
        x: float32[2] = input()
        c: float32[2] = tanh(x)
        c.sent: float32[2] = send(c)  bucket=1 members=2 offset=64
        c.sum: float32[2] = receive(c.sent)  bucket=1 members=2
        a.sent: float32[2] = send(x)  bucket=0 members=1 offset=0
        a.sum: float32[2] = receive(a.sent)  bucket=0 members=1
        b.sent: float32[2] = send(a.sum)  bucket=1 members=2 offset=128
        b.sum: float32[2] = receive(b.sent)  bucket=1 members=2
        s: float32[2] = state()  start=0.0
        next: float32[2] = add(s, b.sum)
        output c = c.sum
        update s = next
    """)
    )
    assert order.index("a.sum") < order.index("b.sent") < order.index("c.sum")


@pytest.mark.slow
@settings(max_examples=12)
@given(nets("float32"))
def test_every_program_of_random_nets(net: gc.Net) -> None:
    plan = gc.compile(net, batch=3, optimizer=gc.SGD(lr=0.1, momentum=0.9), backend="numpy")
    for program in plan.programs.values():
        check(program.graph, schedule(program.graph))


def check(graph: Graph, found: Schedule) -> None:
    at = {node.name: i for i, node in enumerate(found.order)}
    assert len(at) == len(found.order) == len(graph)
    for node in graph:
        assert all(at[name] < at[node.name] for name in node.inputs if waited(graph, name))
    _updates(graph, found, at)
    behind = backward_nodes(graph)
    assert behind == {node.name for node in found.order[found.boundary :]}
    assert behind.isdisjoint(graph.upstream([*graph.outputs.values(), *graph.updates.values()]))


def waited(graph: Graph, name: str) -> bool:
    """Whether a value is made in its turn, and not there from the start."""
    op = graph[name].op
    return isinstance(op, Input) or not isinstance(op, Source)


def _updates(graph: Graph, found: Schedule, at: Mapping[str, int]) -> None:
    """Every state advances once, and nobody reads an old value from where a new one is."""
    advanced = [*((state, value) for value, state in found.in_place.items()), *found.commits]
    assert sorted(advanced) == sorted(graph.updates.items())
    for value, state in found.in_place.items():
        for node in graph:
            if state in node.inputs and node.name != value:
                assert at[node.name] < at[value]
        assert state not in graph.roots
