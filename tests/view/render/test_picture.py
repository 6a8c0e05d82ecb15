"""What is drawn: which nodes on which card, which arrows, what is counted and what is folded."""

from __future__ import annotations

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.op import Source
from graphc.view.render.cards import bytes_text
from graphc.view.render.draw import Card, Picture, picture
from passes.backward import Backward
from passes.specialize import Specialize
from tests.view.render.graphs import compiled, deep, digits


def _unfused(net: gc.Net) -> tuple[Graph, Graph]:
    graph = net.graph()
    wrt = tuple(node.name for node in graph if node.op.name == "parameter")
    return graph, Backward(graph.losses, wrt)(Specialize(train=True)(graph))


def _cards(shown: Picture) -> list[Card]:
    return [card for box in shown.layers for card in box.cards]


def _names(shown: Picture, layer: str) -> dict[str, list[str]]:
    box = next(box for box in shown.layers if box.name == layer)
    return {card.side: [node.name for node in card.nodes] for card in box.cards}


def test_parts_and_gradients_are_in_the_layer_they_are_named_after() -> None:
    shown = picture(*_unfused(digits()))
    assert _names(shown, "dropout_1") == {
        "forward": ["dropout_1.mask", "dropout_1"],
        "backward": ["d_dropout_1"],
    }
    assert _names(shown, "affine_2") == {
        "forward": ["affine_2"],
        "backward": ["d_affine_2"],
        "wrt": ["d_affine_2.weight", "d_affine_2.bias"],
    }


def test_every_node_that_outputs_and_gradients_need_is_drawn_once() -> None:
    declared, graph = _unfused(digits())
    drawn = [node.name for card in _cards(picture(declared, graph)) for node in card.nodes]
    assert len(drawn) == len(set(drawn))
    needed = graph.upstream([*graph.outputs.values(), *graph.gradients.values()])
    ops = {name for name in needed if not isinstance(graph[name].op, Source)}
    assert set(drawn) == ops | {"x", "y"}


def test_arrows_are_the_reads_of_the_graph() -> None:
    declared, graph = _unfused(digits())
    shown = picture(declared, graph)
    card = {node.name: c.id for c in _cards(shown) for node in c.nodes}
    reads = {
        (card[operand], card[node.name])
        for node in graph
        for operand in node.inputs
        if node.name in card and operand in card and card[operand] != card[node.name]
    }
    assert {(link.source, link.target) for link in shown.links} == reads


def test_saved_bytes_count_each_value_once() -> None:
    declared, graph = _unfused(digits())
    shown = picture(declared, graph)
    kept = [node.name for link in shown.links for node in link.kept]
    assert len(kept) == len(set(kept))
    forward = graph.forward()
    read = {
        operand
        for node in graph
        if node.name not in forward and graph.upstream(graph.gradients.values()) >= {node.name}
        for operand in node.inputs
        if operand in forward and (not isinstance(graph[operand].op, Source) or operand in "xy")
    }
    assert set(kept) == read
    assert bytes_text([graph["x"], graph["scores.bias"]]) == "256*N + 40 bytes"


def test_parameters_are_counted_once_even_when_shared() -> None:
    net = gc.Net("shared")
    x = net.input("x", (gc.N, 3))
    w = net.parameter("w", (3, 3))
    net.output("y", gc.affine(gc.affine(x, weight=w, name="a"), weight=w, name="b"))
    shown = picture(net.graph())
    rows = {(c.layer, row.name): row.count for c in _cards(shown) for row in c.rows}
    assert rows == {("a", "w"): 9, ("a", "a.bias"): 3, ("b", "w"): 0, ("b", "b.bias"): 3}
    assert shown.caption == ("15 parameters",)


def test_fused_layers_share_a_frame() -> None:
    shown = picture(*compiled(digits(normed=False)))
    frames = {box.name: box.made_of for box in shown.layers}
    assert frames["relu_1"] == ("affine_1", "relu_1")
    assert "affine_1" not in frames
    assert _names(shown, "relu_1")["wrt"] == ["d_affine_1.weight", "d_affine_1.bias"]


def test_layers_that_inference_omits_are_listed() -> None:
    plan = gc.compile(digits(normed=False), batch=4)
    shown = picture(plan.declared, plan.graphs["infer"][-1].graph)
    assert "nothing left to do: dropout_1, dropout_2" in shown.caption


def test_targets_are_listed() -> None:
    """Their next values are no layers that a pass has removed."""
    net = gc.Net("targets")
    x = net.input("x", (gc.N, 3))
    value, _ = (gc.affine(x, 1, name=name) for name in ("critic", "target"))
    net.loss("loss", gc.mean(value * value))
    gc.track(net, "target*", of="critic*", rate=0.1)
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1))
    caption = picture(plan.declared, plan.graphs["step"][-1].graph).caption
    assert "following others: target.weight, target.bias" in caption
    assert "nothing left to do: target" in caption  # the layer itself, which nothing reads


def test_outputs_and_losses_are_marked() -> None:
    marks = [card.marks for card in _cards(picture(digits().graph())) if card.marks]
    assert marks == [("output: scores",), ("loss: loss",)]


def test_many_nodes_are_summed_up_by_layer() -> None:
    shown = picture(*_unfused(deep(200)), fold=False)
    assert all(card.summed for card in _cards(shown) if card.side != "input")
    assert "1,203 nodes summed up, one card a layer and direction" in shown.caption
    assert len(shown.layers) == 402


def test_of_many_layers_the_ends_are_drawn() -> None:
    declared, graph = _unfused(deep(1000))
    shown = picture(declared, graph, fold=False)
    names = [box.name for box in shown.layers]
    assert len(names) == 41 and shown.layers[20].text == "layers not drawn"
    assert names[0] == "x" and names[-1] == "mean_1"
    assert "not drawn one by one: 1,962 of 2,002 layers, in the middle" in shown.caption
    needed = graph.upstream([*graph.outputs.values(), *graph.gradients.values()])
    ops = {name for name in needed if not isinstance(graph[name].op, Source)}
    assert {node.name for card in _cards(shown) for node in card.nodes} == ops | {"x"}


def test_a_compiled_graph_alone_is_grouped_by_its_own_names() -> None:
    _, graph = _unfused(digits())
    assert _names(picture(graph), "dropout_1")["forward"] == ["dropout_1.mask", "dropout_1"]
