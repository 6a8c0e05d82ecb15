"""Nodes that passes make carry the lines of what they are made from."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import TensorType
from graphc.ops.fused_norm import NormalizeDgamma, NormalizeDx
from graphc.ops.norm import Normalize
from graphc.ops.source import state
from passes.backward import Backward
from passes.channels_last import channels_last
from passes.data_parallel import DataParallel
from passes.fold_batchnorm import fold_batchnorm
from passes.fold_constants import fold_constants
from passes.shard import Shard
from passes.share_batchnorm_statistics import share_batchnorm_statistics
from passes.update import Update, apply_graph
from tests.passes.same import differentiated, frozen, specialized


def net() -> gc.Net:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    a = gc.affine(x, 2, name="a")
    h = gc.batchnorm(a, name="bn")
    net.output("h", h)
    net.loss("loss", gc.mean(gc.tanh(h)))
    return net


def test_accumulation_carries_the_lines_of_its_parameter() -> None:
    graph = Update(gc.SGD(0.1, accumulate=2))(differentiated(net()))
    for name in ("a.weight", "bn.gamma"):
        total = f"{name}.accumulated"
        assert graph[total].locs == graph[name].locs
        assert graph[graph.updates[total]].locs == graph[name].locs
    assert graph[graph.updates["accumulated"]].locs == ()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_update_alone_carries_the_lines_of_its_parameters(accumulate: int) -> None:
    declared = net().graph()
    names = "a.weight", "bn.gamma"
    optimizer = gc.SGD(lr=0.1, momentum=0.9, accumulate=accumulate)
    graph = apply_graph([declared[name] for name in names], optimizer)
    for node in graph:
        owner = next((name for name in names if name in node.name), None)
        assert node.locs == (declared[owner].locs if owner else ()), node.name
    made = {node.name for node in graph}
    assert ("gradient:a.weight" in made) == (accumulate == 1)
    assert ("a.weight.gradient" in made) == (accumulate > 1)


@pytest.mark.parametrize("wrt", [("x",), ("bn.gamma",), ("x", "bn.gamma", "bn.beta")])
def test_shared_statistics_carry_the_lines_of_the_batchnorm(wrt: tuple[str, ...]) -> None:
    declared = net()
    graph = Backward(("loss",), wrt)(specialized(declared))
    made = share_batchnorm_statistics(graph)
    lines = declared.graph()["bn"].locs
    kinds = Normalize, NormalizeDx, NormalizeDgamma
    found = [node for node in made if isinstance(node.op, kinds)]
    assert len(found) == (3 if "x" in wrt else 2)
    for node in [*found, *(n for n in made if n.name.endswith((".dgamma", ".dbeta")))]:
        assert node.locs == lines
        assert lines


def test_a_folded_batchnorm_carries_the_lines_of_both() -> None:
    graph = frozen(net())
    made: Graph = fold_batchnorm(graph)
    assert made["bn"].locs == (*graph["a"].locs, *graph["bn"].locs)
    assert len(made["bn"].locs) == 2
    for name in ("bn.folded_weight", "bn.folded_bias"):
        assert made[name].locs == graph["bn"].locs


def test_joined_and_folded_nodes_carry_their_own_lines() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2, 3))
    first = gc.reshape(x, (gc.N, 3, 2))
    net.output("reshaped", gc.reshape(first, (gc.N, 6), name="reshaped"))
    turned = gc.transpose(gc.transpose(x, (1, 0, 2)), (2, 0, 1), name="turned")
    net.output("turned", turned)
    net.output("folded", gc.exp(net.constant(2.0), name="folded"))
    net.output("reading", gc.tanh(x * 1, name="reading"))
    before = net.graph()
    made = fold_constants(before)
    ops = {"reshaped": "reshape", "turned": "transpose", "folded": "constant", "reading": "tanh"}
    for name, op in ops.items():
        assert made[name].op.name == op
        assert made[name].locs == before[name].locs != ()
        assert made[name].type == before[name].type
    assert made["reading"].inputs == made["turned"].inputs == ("x",)


def in_shards() -> Graph:
    """With a mask, statistics of all shards, and a counter."""
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    h = gc.batchnorm(gc.dropout(x, keep_prob=0.5, name="drop"), name="bn")
    net.loss("loss", gc.mean(h * h, name="cost"))
    steps = state(net.builder, "steps", TensorType((), "float32"))
    net.builder.update(steps, gc.add(steps, 1, name="steps.next"))
    return Shard((("loss", "rows"),), synchronise=True)(specialized(net))


def test_shards_carry_the_lines_of_what_they_are_parts_of() -> None:
    graph = in_shards()
    for name in ("drop.mask", "bn.mean", "bn.mean.own", "bn.mean.part", "bn", "cost.part"):
        owner = name.partition(".")[0]
        assert graph[name].locs == graph[owner].locs != (), name
    for name in ("shard.first_row", "shard.share.rows.float32"):
        assert graph[name].locs == ()


def test_exchanges_carry_the_lines_of_what_is_sent() -> None:
    graph = in_shards()
    before = Backward(graph.losses, ("bn.gamma",))(graph)
    after = DataParallel()(before)
    added = [node for node in after if node.name not in before]
    assert len(added) > 8
    for node in added:
        owner = node.name.rpartition(".")[0].removesuffix(".part")
        assert node.locs == before[owner].locs, node.name
    for node in before:
        assert after[node.name].locs == node.locs
    for name in ("bn.mean", "bn.running_mean.next.part.sum", "d_bn.gamma.sum", "steps.next.at_end"):
        assert after[name].locs != ()


def test_images_carry_the_lines_of_what_is_done_to_them() -> None:
    net = gc.Net("net")
    h = gc.conv2d(net.input("x", (gc.N, 2, 4, 3)), 2, 2, name="first")
    h = gc.pad(gc.relu(h, name="r") * net.parameter("k", (2, 1, 1)), (0, 0, 1, 1), name="p")
    net.output("y", gc.conv2d(h, 3, 1, name="last"))
    before = specialized(net)
    made = channels_last(before)
    for name in ("r.pixels", "r.channels_last", "p.channels_last", "r", "p"):
        assert made[name].locs == before[name.partition(".")[0]].locs != ()
    moved = [node for node in made if node.name in before and node != before[node.name]]
    assert any(node.op == before[node.name].op for node in moved)
    for node in moved:
        assert node.locs == before[node.name].locs
