"""Loops in pictures: a step is drawn once, and the loops of a gradient lie beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

import graphc as gc
from graphc.ir.graph import Graph, Node
from graphc.ir.step_graph import step_of
from graphc.ops.loops.op import loops
from graphc.view.render import page_of, plan_graph
from graphc.view.render.arena import ArenaMap
from graphc.view.render.draw import Picture, picture
from graphc.view.render.layer_scene import graph_scene
from graphc.view.render.loops import opened
from graphc.view.render.passes_view import kernels_scene
from graphc.view.render.scene import Frame
from graphc.view.render.style import line_text

T = 9


def rnn(layers: int = 1, reverse: bool = False, lengths: bool = False, steps: int = T) -> gc.Net:
    """Layers of h = tanh(x @ w + h @ u)."""
    net = gc.Net("rnn")
    x, h0 = net.input("x", (gc.N, steps, 5)), net.input("h0", (gc.N, 5))
    rows = net.input("rows", (gc.N,), dtype="int32") if lengths else None
    for number in range(layers):
        w, u = net.parameter(f"w{number}", (5, 5)), net.parameter(f"u{number}", (5, 5))

        def step(x: gc.Value, h: gc.Value, w: gc.Value = w, u: gc.Value = u) -> tuple:  # type: ignore[type-arg]
            h = gc.tanh(x @ w + h @ u)
            return h, h

        x, _ = gc.scan(step, x, h0, reverse=reverse, lengths=rows, name=f"layer{number}")
    net.output("states", x)
    net.loss("loss", gc.mean(x * x))
    return net


def inside() -> gc.Net:
    """A loop in a loop, and a value that only the next step reads."""
    net = gc.Net("inside")
    x, h0 = net.input("x", (gc.N, 3, 4, 5)), net.input("h0", (gc.N, 5))
    u = net.parameter("u", (5, 5))

    def inner(x: gc.Value, h: gc.Value) -> tuple:  # type: ignore[type-arg]
        h = gc.tanh(x + h @ u)
        return h, h

    def outer(x: gc.Value, h: gc.Value, n: gc.Value) -> tuple:  # type: ignore[type-arg]
        states, last = gc.scan(inner, x, h, name="inner")
        return gc.sum(states, axis=1) * n, (last, n + 1.0)

    zero = gc.broadcast_to(net.constant(0.0), (gc.N, 5))
    y, _ = gc.scan(outer, x, (h0, zero), name="outer")
    net.output("y", y)
    net.loss("loss", gc.mean(y * y))
    return net


def planned(net: gc.Net) -> tuple[Graph, Graph]:
    plan = gc.compile(net, batch=4, backend="numpy")
    return plan.declared, plan_graph(plan)


def names(shown: Picture) -> Iterator[str]:
    for card in shown.cards:
        yield from (node.name for node in card.nodes)


def steps(nodes: Iterable[Node]) -> Iterator[Node]:
    """The ops among nodes and in the steps of their loops, those of each loop once."""
    some = list(nodes)
    for group in loops(some).values():
        step = step_of(group[0].op)
        assert step is not None
        yield from steps(step.nodes)
    yield from (n for n in some if not n.op.is_source and not n.op.is_joint)


def test_a_step_is_drawn_once_in_the_frame_of_its_loop() -> None:
    shown = picture(rnn().graph())
    assert shown.loops == {"layer0": f"{T} steps"}
    assert [n for n in names(shown) if n.startswith("layer0/")] == [
        "layer0/x",
        "layer0/h0",
        "layer0/matmul_1",
        "layer0/matmul_2",
        "layer0/add_1",
        "layer0/tanh_1",
    ]
    ops = {node.name: node.op.name for card in shown.cards for node in card.nodes}
    assert (ops["layer0/x"], ops["layer0/h0"], ops["layer0.steps"]) == (
        "x[t]",
        "carried",
        "all steps",
    )


def test_the_results_of_a_loop_are_one_box_below_its_frame() -> None:
    for drawn in (picture(rnn().graph()), picture(*planned(rnn()))):
        of = {node.name: box.name for box in drawn.layers for c in box.cards for node in c.nodes}
        boxes = {box for name, box in of.items() if name in ("layer0.steps", "layer0.last")}
        assert len(boxes) == 1 and "/" not in boxes.pop()


def test_carried_values_go_from_their_next_value_back_to_the_input() -> None:
    shown = picture(rnn().graph())
    cards = {node.name: card.id for card in shown.cards for node in card.nodes}
    carried = [link for link in shown.links if link.kind == "carried"]
    ends = [(link.source, link.target) for link in carried]
    assert ends == [(cards["layer0/tanh_1"], cards["layer0/h0"])]
    dot = graph_scene(rnn().graph()).dot()
    line = next(line for line in dot.splitlines() if "class=carried" in line)
    assert "xlabel=h0" in line and "style=dashed" in line and "constraint=false" in line


def test_weights_enter_the_step_from_outside() -> None:
    shown = picture(rnn().graph())
    rows = {card.layer: [row.name for row in card.rows] for card in shown.cards if card.rows}
    assert rows == {"layer0/matmul_1": ["w0"], "layer0/matmul_2": ["u0"]}


def test_a_reversed_loop_says_so() -> None:
    assert picture(rnn(reverse=True).graph()).loops == {"layer0": f"{T} steps, last first"}


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_gradient_of_a_step_is_beside_it(reverse: bool, lengths: bool) -> None:
    shown = picture(*planned(rnn(2, reverse, lengths)))
    assert set(shown.loops) == {"layer0", "layer1"}, "the loops of the gradient have no own frames"
    sides = {box.name: [card.side for card in box.cards] for box in shown.layers}
    for number in (0, 1):
        assert sides[f"layer{number}/tanh_1"] == ["forward", "backward"]
        assert sides[f"layer{number}/matmul_2"] == ["forward", "wrt"]


def test_what_is_kept_says_how_often() -> None:
    shown = picture(*planned(rnn()))
    kept = {node.name: link.steps for link in shown.links for node in link.kept}
    assert kept["layer0/tanh_1"] == T and kept["layer0/h0"] == T
    assert f'"{T} x 20*N bytes"' in graph_scene(*planned(rnn())).dot()


def test_products_of_all_steps_are_marked() -> None:
    shown = picture(*planned(rnn()))
    marked = {card.layer for card in shown.cards if "all steps at once" in card.marks}
    assert {"layer0/matmul_1", "layer0/matmul_2"} <= marked and "layer0/tanh_1" not in marked


def test_loops_that_repeat_are_folded() -> None:
    assert [fold.times for fold in picture(*planned(rnn(6))).folds] == [5]
    # As declared there is a transpose between two layers, so that the last layer differs.
    assert [fold.times for fold in picture(rnn(6).graph()).folds] == [4]


def test_a_loop_in_a_loop_is_a_frame_in_a_frame() -> None:
    shown = picture(inside().graph())
    assert shown.loops == {"outer": "3 steps", "outer/inner": "4 steps"}
    carried = {link.values[0].name for link in shown.links if link.kind == "carried"}
    assert carried == {"outer/h", "outer/n", "outer/inner/h"}


@pytest.mark.parametrize("net", [rnn(), rnn(2, True, True), inside()], ids=["one", "two", "inside"])
def test_every_node_of_every_step_is_drawn(net: gc.Net) -> None:
    """An op of the declared net is drawn once; of a compiled one, each op that is needed."""
    declared, compiled = planned(net)
    drawn = Counter(n.op for c in picture(declared).cards for n in c.nodes)
    ops = Counter(node.op for node in steps(declared))
    assert {op: drawn[op] for op in ops} == ops
    found = opened(compiled, opened(declared))
    roots = [*compiled.outputs.values(), *compiled.gradients.values()]
    needed = {n for n in found.upstream(roots) if not found.graph[n].op.is_source}
    assert needed <= set(names(picture(declared, compiled)))


def test_a_graph_without_loops_stays_itself() -> None:
    net = gc.Net("plain")
    net.output("y", gc.relu(net.input("x", (gc.N, 3))))
    graph = net.graph()
    assert opened(graph).graph is graph


def test_a_loop_is_one_box_among_the_kernels() -> None:
    plan = gc.compile(rnn(), batch=4, backend="numpy")
    program = plan.programs["grad"]
    found = [instr for instr in program.instrs if instr.inside is not None]
    frames = [item for item in kernels_scene(program).items if isinstance(item, Frame)]
    boxes = [
        box
        for frame in frames
        if f"loop of {T} steps" in line_text(frame.heading)
        for box in frame.items
    ]
    assert len(boxes) == len(found) and any(len(instr.nodes) > 1 for instr in found)


def test_what_a_loop_keeps_is_kept_in_the_arena_and_its_workspace_is_named() -> None:
    plan = gc.compile(rnn(), batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy")
    role = {part.name: part.role for part in ArenaMap(plan.programs["step"]).parts}
    assert role["layer0.steps"] == "kept" and role["layer0.steps.h0"] == "kept"
    assert role["layer0.steps.workspace"] == "loop"


def test_the_table_of_layers_and_the_facts_have_the_nodes_of_steps() -> None:
    plan = gc.compile(rnn(), batch=4, backend="numpy")
    page = page_of(*planned(rnn()), plan=plan)
    assert '<tr class="op" data-node="layer0/tanh_1">' in page
    assert '["layer0/tanh_1","tanh"' in page and '["d_layer0/tanh_1.next","carried"' in page
    assert "StepGraph" not in page


def test_a_loop_in_segments_is_still_one_frame() -> None:
    net, sgd = rnn(steps=75), gc.SGD(lr=0.1)
    total = gc.compile(net, batch=64, optimizer=sgd, backend="numpy").memory.total
    plan = gc.compile(net, batch=64, optimizer=sgd, backend="numpy", budget=total * 9 // 10)
    shown = picture(plan.declared, plan_graph(plan))
    assert shown.loops == {"layer0": "75 steps in 3 segments"}
    assert any("recompute one segment" in line for line in shown.caption)
    kept = {node.name: link.steps for link in shown.links for node in link.kept}
    assert kept["layer0/tanh_1"] == 25
    inside = {name for name in names(picture(net.graph())) if name.startswith("layer0/")}
    assert inside <= set(names(shown))


def test_a_drawing_too_tangled_leaves_the_steps_out() -> None:
    drawing = graph_scene(*planned(rnn()))
    assert drawing.simpler is not None
    simpler = drawing.simpler()
    assert not simpler.picture.loops and simpler.simpler is None
    drawn = set(names(simpler.picture))
    assert "layer0.steps" in drawn and not any(name.startswith("layer0/") for name in drawn)
