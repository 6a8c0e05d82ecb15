"""Blocks that come again are found, drawn once, and nothing of them is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.ir.graph import Graph
from graphc.view.render.draw import Picture, picture
from graphc.view.render.layers import LONGEST, Block, repeated
from tests.view.render.graphs import compiled, deep, residual


def _totals(shown: Picture) -> tuple[set[str], int, set[str]]:
    """The nodes on cards, the parameters counted, and the values that are saved."""
    cards = [card for box in shown.layers for card in box.cards]
    names = [node.name for card in cards for node in card.nodes]
    assert len(names) == len(set(names))
    counted = sum(row.count for card in cards for row in card.rows)
    return set(names), counted, {node.name for link in shown.links for node in link.kept}


def _both(net: gc.Net) -> tuple[Picture, Picture]:
    graphs = compiled(net)
    return picture(*graphs), picture(*graphs, fold=False)


def test_blocks_of_a_sequence() -> None:
    assert repeated("aaaa", 4) == [Block(0, 1, 4)]
    assert repeated("aaaa", 5) == []
    assert repeated("xababababy", 3) == [Block(1, 2, 4)]
    assert repeated("aabaabaab" + "cccc", 3) == [Block(0, 3, 3), Block(9, 1, 4)]
    assert repeated("", 2) == []


@given(st.lists(st.sampled_from("ab"), max_size=60), st.integers(2, 5))
def test_found_blocks_are_repeats(layers: list[str], fewest: int) -> None:
    end = 0
    for block in repeated(layers, fewest):
        assert block.start >= end and block.times >= fewest and block.size <= LONGEST
        end = block.repeats.stop
        first = layers[block.start : block.start + block.size]
        assert first * block.times == layers[block.start : end]
        assert layers[end : end + block.size] != first


def test_a_chain_is_one_layer_and_a_fold() -> None:
    folded, opened = _both(deep(50))
    assert [box.text for box in folded.layers[1:3]] == [
        "affine_1 + relu_1",
        "the layer above, 49 more times",
    ]
    assert len(folded.layers) < 6 and len(opened.layers) > 50
    assert not opened.folds and len(folded.folds[0].layers) == 49
    assert "49 of 52 layers repeat those above them, and are folded" in folded.caption


def test_residual_blocks_fold_with_their_shortcuts() -> None:
    folded, _ = _both(residual(8))
    (fold,) = folded.folds
    assert fold.times == 7 and fold.text.endswith("layers above, 7 more times")
    assert fold.layers[-1] == "add_8"


@pytest.mark.one_in(3)
@pytest.mark.parametrize("net", [deep(50), residual(8), deep(700)], ids=["50", "residual", "700"])
def test_folding_loses_nothing(net: gc.Net) -> None:
    folded, opened = _both(net)
    assert folded.folds and _totals(folded)[:2] == _totals(opened)[:2]
    assert _totals(folded)[2] == _totals(opened)[2]


def _chain(layer: Callable[[gc.Value, int], gc.Value]) -> Graph:
    net = gc.Net("chain")
    h = net.input("x", (gc.N, 8))
    for number in range(6):
        h = layer(h, number)
    net.output("y", h)
    return net.graph()


def _folds(layer: Callable[[gc.Value, int], gc.Value]) -> list[int]:
    return [fold.times for fold in picture(_chain(layer)).folds]


def test_different_layers_are_not_folded() -> None:
    assert _folds(lambda h, _: gc.dropout(h, keep_prob=0.5)) == [5]
    assert _folds(lambda h, i: gc.dropout(h, keep_prob=0.5 + 0.05 * i)) == []
    assert _folds(lambda h, _: gc.affine(h, 8)) == [5]
    assert _folds(lambda h, i: gc.affine(h, 8 + i)) == []
    assert _folds(lambda h, _: h * 2.0) == [5]
    assert _folds(lambda h, i: h * float(i + 2)) == []


def test_a_shortcut_with_another_end_does_not_repeat() -> None:
    first: list[gc.Value] = []

    def layer(h: gc.Value, number: int) -> gc.Value:
        first.append(h)
        return gc.tanh(h) + first[number // 2]

    assert _folds(layer) == []


def test_inputs_are_never_folded() -> None:
    net = gc.Net("inputs")
    inputs = [net.input(f"x{i}", (gc.N, 4)) for i in range(6)]
    net.output("y", gc.concat(inputs, axis=1))
    assert not picture(net.graph()).folds
