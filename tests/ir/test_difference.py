"""What differs between two graphs, and what it amounts to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.ir.byte_count import Bytes
from graphc.ir.difference import Difference, difference
from graphc.ir.graph import Graph, Node
from graphc.ir.step_graph import StepGraph
from graphc.ops.source import State
from graphc.view.cost import changed_totals, totals, totals_after
from tests.tools.generate import nets
from tests.view.render.graphs import compiled, digits


def net(name: str = "hidden", units: int = 8, *, drop: str = "drop", twice: bool = False) -> Graph:
    made = gc.Net("small")
    h = gc.affine(made.input("x", (gc.N, 4)), units, name=name)
    h = gc.dropout(gc.relu(h, name="active"), keep_prob=0.5, name=drop)
    made.output("scores", gc.affine(h, 3, name="scores"))
    if twice:
        made.output("more", gc.exp(h, name="more"))
    return made.graph()


def passes(net: gc.Net) -> list[tuple[str, Difference]]:
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1, momentum=0.9), backend="numpy")
    found, before = [], plan.declared
    for record in plan.graphs["step"]:
        found.append((record.name, difference(before, record.graph)))
        before = record.graph
    return found


def renamed(graph: Graph, new: dict[str, str]) -> Graph:
    """The same graph under other names of nodes."""

    def of(name: str) -> str:
        return new.get(name, name)

    def node(old: Node) -> Node:
        return replace(old, name=of(old.name), inputs=tuple(map(of, old.inputs)))

    return Graph(
        graph.name,
        map(node, graph),
        outputs={key: of(name) for key, name in graph.outputs.items()},
        losses=graph.losses,
        gradients={key: of(name) for key, name in graph.gradients.items()},
        updates={of(key): of(name) for key, name in graph.updates.items()},
    )


def test_equal_graphs_do_not_differ() -> None:
    made = difference(net(), net())
    assert not made and not made.changes
    assert str(made) == "no difference\n"


def test_a_renamed_layer_is_renamed_with_its_parameters() -> None:
    assert str(difference(net("hidden"), net("first"))) == (
        "3 renamed\n"
        "= hidden.weight -> first.weight\n"
        "= hidden.bias -> first.bias\n"
        "= hidden -> first\n"
    )


def test_a_name_that_is_an_attribute_too_is_a_change() -> None:
    assert str(difference(net(drop="drop"), net(drop="off"))) == (
        "1 changed\n"
        "~ drop: float32[N, 8] = layer dropout(active, seed, draws)  "
        "keep_prob=0.5 stream=685911182\n"
        "  off: float32[N, 8] = layer dropout(active, seed, draws)  "
        "keep_prob=0.5 stream=938344099\n"
    )


def test_types_and_roots() -> None:
    text = str(difference(net(units=8), net(units=9, twice=True)))
    assert text.startswith("1 added, 6 changed\n")
    assert "~ hidden: float32[N, 8] = layer affine(x, hidden.weight, hidden.bias)\n" in text
    assert "  hidden: float32[N, 9] = layer affine(x, hidden.weight, hidden.bias)\n" in text
    assert "+ more: float32[N, 9] = exp(drop)\n" in text
    assert text.endswith("+ output more = more\n")
    back = str(difference(net(twice=True), net()))
    assert back == ("1 removed\n- more: float32[N, 8] = exp(drop)\n- output more = more\n")


def test_losses_alone() -> None:
    made = gc.Net("a")
    h = gc.mean(made.input("x", (gc.N, 2)))
    made.output("l", h)
    graph = made.graph()
    other = Graph("a", graph, outputs=graph.outputs, losses=("l",))
    assert str(difference(graph, other)) == "the same nodes, other roots\n+ losses l\n"


def test_fuse_affine_relu() -> None:
    found = dict(passes(digits(normed=False)))
    assert str(found["fuse_affine_relu"]) == (
        "2 removed, 2 changed\n"
        "- affine_1: float32[N, 100] = affine(x, affine_1.weight, affine_1.bias)\n"
        "~ relu_1: float32[N, 100] = relu(affine_1)\n"
        "  relu_1: float32[N, 100] = affine_relu(x, affine_1.weight, affine_1.bias)\n"
        "- affine_2: float32[N, 50] = affine(dropout_1, affine_2.weight, affine_2.bias)\n"
        "~ relu_2: float32[N, 50] = relu(affine_2)\n"
        "  relu_2: float32[N, 50] = affine_relu(dropout_1, affine_2.weight, affine_2.bias)\n"
    )


def test_a_long_line_is_cut() -> None:
    made = gc.Net("a")
    c = made.constant([i / 7 for i in range(300)], name="c")
    made.output("y", made.input("x", (gc.N, 300)) + c)
    empty = Graph("a", ())
    lines = str(difference(empty, made.graph())).splitlines()
    (line,) = (line for line in lines if line.startswith("+ c:"))
    assert line.endswith(" ...") and len(line) == 242


@settings(max_examples=12, deadline=None)
@given(nets(), st.data())
def test_renaming_any_nodes_is_only_renaming(net: gc.Net, data: st.DataObject) -> None:
    before = net.graph()
    ops = [node.name for node in before if node.inputs]
    chosen = data.draw(st.lists(st.sampled_from(ops), unique=True, min_size=1))
    made = difference(before, renamed(before, {name: f"{name}.other" for name in chosen}))
    assert {pair.kind for pair in made.changes} == {"renamed"}
    assert not made.roots
    assert made.count("renamed") == len(chosen)


@settings(max_examples=12, deadline=None)
@given(nets())
def test_every_node_of_either_graph_stands_in_one_pair(net: gc.Net) -> None:
    for _, made in passes(net):
        before = [pair.before.name for pair in made.pairs if pair.before is not None]
        after = [pair.after.name for pair in made.pairs if pair.after is not None]
        assert sorted(before) == sorted(made.before.nodes)
        assert after == list(made.after.nodes)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(nets())
def test_totals_follow_from_the_differences(net: gc.Net) -> None:
    found = passes(net)
    known = totals(found[0][1].before, 4)
    for _, made in found:
        known = totals_after(known, made)
        assert known == totals(made.after, 4)


def test_totals_of_a_graph_count_what_is_computed() -> None:
    made = gc.Net("a")
    h = gc.affine(made.input("x", (gc.N, 4)), 3, name="h")
    made.output("y", gc.relu(h))
    plan = gc.compile(made, batch=8, backend="numpy", passes=gc.passes.without("fuse_affine_relu"))
    found = totals(plan.graphs["infer"][-1].graph, 8)
    assert (found.nodes, found.parameters, found.values) == (5, 15, Bytes(24, 0))
    # 8 rows: 2 * 4 * 3 for the products and 3 for the bias, and 3 for the relu.
    assert found.flops == 8 * (24 + 3 + 3)
    assert totals(made.graph(), 8).flops is None
    program = totals(plan.declared, 8, plan.programs["infer"])
    # One kernel, in which relu is a comparison with 0 and a choice.
    assert (program.instructions, program.flops) == (1, 8 * (24 + 3 + 3 + 3))


def test_changed_totals_as_text() -> None:
    before, after = net(), net(units=16)
    assert list(changed_totals(totals(before, 1), totals(after, 1))) == [
        "parameters 67 -> 131 (+64)",
        "bytes of values 108*N -> 204*N (+96*N)",
    ]
    assert list(changed_totals(totals(after, 1), totals(after, 1))) == []


@pytest.mark.parametrize("normed", [True, False])
def test_backward_adds_only(normed: bool) -> None:
    (made,) = (made for name, made in passes(digits(normed)) if name == "backward")
    assert {pair.kind for pair in made.changes} == {"added"}
    gradients = {root.name for root in made.roots if root.what == "gradient"}
    parameters = {n.name for n in compiled(digits(normed))[0] if n.op.name == "parameter"}
    assert gradients == parameters


def looped(scale: float, reverse: bool = False) -> Graph:
    made = gc.Net("looped")
    x, h0 = made.input("x", (gc.N, 6, 4)), made.input("h0", (gc.N, 4))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(x + scale * h, name="new")
        return h, h

    states, last = gc.scan(step, x, h0, reverse=reverse, name="rnn")
    made.output("states", states)
    made.output("last", last)
    return made.graph()


def test_a_changed_step_is_a_difference_in_the_step() -> None:
    """Both results have the step; it is shown once."""
    lines = str(difference(looped(0.5), looped(0.25))).splitlines()
    assert lines[0] == "2 changed"
    results = [line for line in lines[1:] if not line.startswith("    ")]
    assert [line[:11] for line in results] == ["~ rnn.steps", "~ rnn.last:"]
    assert [line for line in lines if line.startswith("    ")] == [
        "    in the step: 1 changed",
        "    ~ constant_1: float32[] = constant()  data=[0.5]",
        "      constant_1: float32[] = constant()  data=[0.25]",
    ]


def test_another_order_of_steps_is_no_difference_in_the_step() -> None:
    text = str(difference(looped(0.5), looped(0.5, reverse=True)))
    assert "reverse=True" in text and "in the step" not in text


def test_zeros_of_either_sign_make_steps_differ() -> None:
    """0.0 equals -0.0, but the text of the step differs."""
    steps = []
    for start in (0.0, -0.0):
        node = Node("h", State((), "float32", start=start), (), gc.TensorType((), "float32"))
        steps.append(StepGraph((node,)))
    assert steps[0] != steps[1] and steps[0] == StepGraph(steps[0].nodes)
    assert repr(steps[0]) == "StepGraph(1 node)"


def test_an_added_loop_shows_its_step() -> None:
    made = gc.Net("looped")
    made.input("x", (gc.N, 6, 4)), made.input("h0", (gc.N, 4))
    text = str(difference(made.graph(), looped(0.5)))
    assert text.count("in the step") == 1 and "    + new: float32[N, 4] = tanh(" in text
